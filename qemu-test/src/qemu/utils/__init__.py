"""`qemu.utils` for QEMU's functional tests: which accelerators can be used here."""

from __future__ import annotations

from qemu_test.emulator import Emulator, hvf_works, kvm_works

__all__ = ("hvf_available", "kvm_available", "list_accel", "tcg_available")


def list_accel(qemu_bin: str) -> list[str]:
    """Return the accelerators `qemu_bin` was built with."""
    return list(Emulator.at(qemu_bin).accelerators)


def tcg_available(qemu_bin: str) -> bool:
    """Whether `qemu_bin` can run on TCG."""
    return "tcg" in list_accel(qemu_bin)


def kvm_available(target_arch: str | None = None, qemu_bin: str | None = None) -> bool:
    """Whether KVM can be used here, for guests of `target_arch` and by `qemu_bin` if given."""
    return kvm_works(target_arch) and (qemu_bin is None or "kvm" in list_accel(qemu_bin))


def hvf_available(qemu_bin: str | None = None) -> bool:
    """Whether macOS's hypervisor can be used here, by `qemu_bin` if given."""
    return hvf_works() and (qemu_bin is None or "hvf" in list_accel(qemu_bin))
