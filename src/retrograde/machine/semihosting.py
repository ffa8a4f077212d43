"""Semihosting: a guest asks QEMU itself for a console, an exit status, and the host's files.

Text and exit status need nothing from the host. Files do, and no option of QEMU keeps a guest
from them, so a QEMU with semihosting is confined: what it may not write, and that it may start
no program, is the same when recording and in each replay, and the guest gets the same answers.
"""

from __future__ import annotations

from retrograde.errors import EnvironmentLacks
from retrograde.machine import confine
from retrograde.machine.qemu import Qemu
from retrograde.recording.machinespec import SEMIHOSTING, MachineSpec


def must_be_confined(spec: MachineSpec, qemu: Qemu) -> bool:
    """Whether a QEMU that runs `spec` may change no files.

    Raises EnvironmentLacks where that cannot be had.
    """
    if not any(spec.properties(SEMIHOSTING)):
        return False
    if confine.version() == 0:
        raise EnvironmentLacks(
            "This kernel has no Landlock, without which a guest with semihosting could change "
            "your files.",
            "Use Linux 5.13 or newer with Landlock on, or a guest with a serial port.",
        )
    if not qemu.has_sandbox:
        raise EnvironmentLacks(
            f"{qemu.path.name} was built without seccomp, without which a guest with semihosting "
            "could start programs of yours.",
            "Use another QEMU, or a guest with a serial port.",
        )
    return True
