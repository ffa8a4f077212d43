"""What is particular to each target."""
