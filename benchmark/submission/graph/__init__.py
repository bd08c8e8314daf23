"""ONNX files: read by a list of operators and rules, turned into torch layers, checked, written."""
