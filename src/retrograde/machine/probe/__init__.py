"""The Python side of the probe."""
