"""Test doubles for people who build on retrograde: a small deterministic machine."""
