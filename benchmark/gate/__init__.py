"""The gate: is a candidate less robust, less accurate or larger than its baseline?"""
