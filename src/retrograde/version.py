"""The version of retrograde, kept in recordings as the tool that made them."""

__version__ = "0.1.0"
