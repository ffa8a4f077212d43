"""Bytes of the protocols we speak, without any knowledge of QEMU."""
