"""The recording: one directory on disk. Runs nothing."""
