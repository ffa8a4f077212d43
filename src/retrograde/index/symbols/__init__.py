"""Names of code and data."""
