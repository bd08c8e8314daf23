"""Every record that is written to disk, and the one strict reader of each."""
