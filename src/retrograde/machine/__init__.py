"""One QEMU process: launch, QMP, GDB remote protocol, quirks, ISA tables. Knows no history."""
