"""Questions that tables and replays answer together."""
