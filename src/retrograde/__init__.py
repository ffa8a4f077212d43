"""Whole-machine time-travel debugging on stock QEMU."""
