"""The cursor over a recording: seek, step and run in both directions. Knows no front end."""
