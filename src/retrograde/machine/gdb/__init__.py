"""QEMU's gdbstub."""
