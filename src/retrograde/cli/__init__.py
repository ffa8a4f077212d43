"""The command line: thin translation, no algorithms."""
