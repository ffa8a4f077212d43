"""What may be replayed, and with which QEMU: the one that made the recording."""

from __future__ import annotations

from retrograde.errors import QemuMismatch
from retrograde.machine.qemu import Qemu
from retrograde.recording.bundle import LOG, Recording


def qemu_for(recording: Recording, program: str | None = None, *, force: bool = False) -> Qemu:
    """Return the QEMU to replay `recording` with, after checking its inputs.

    Record/replay holds only between identical builds and identical files: raises
    QemuMismatch, InputChanged or RecordingError unless `force`, EnvironmentLacks when
    there is no QEMU. A damaged log (LogCorrupt) is never let through.
    """
    recording.check_digests([LOG] if force else None)
    qemu = Qemu.find(recording.manifest.machine.target, program)
    if force:
        return qemu
    recorded = recording.manifest.qemu
    if qemu.full_version != recorded.version or qemu.digest != recorded.sha256:
        build = "another build of " if qemu.full_version == recorded.version else ""
        raise QemuMismatch(
            f"{recording.name} was recorded by QEMU {recorded.version}; "
            f"{qemu.path} is {build}{qemu.full_version}.",
            "Install that QEMU or name it with --qemu; --force tries this one all the same.",
        )
    recording.check_inputs()
    return qemu
