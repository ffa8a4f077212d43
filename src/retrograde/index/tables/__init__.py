"""The tables, and how they are made."""
