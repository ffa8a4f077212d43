"""Whether a recorded machine can be loaded from a snapshot: tried once, right after recording.

Some boards cannot: QEMU dies of it, or the machine never goes on. Which ones is not known
beforehand, so each machine is tried, with a snapshot of position 0.
"""

from __future__ import annotations

from retrograde.errors import QemuError
from retrograde.machine.qemu import Qemu
from retrograde.machine.ram import MIB, GuestRam
from retrograde.machine.replayer import Replayer
from retrograde.machine.snapshot import Fill, Snapshot
from retrograde.recording.bundle import Recording

TAG = "trial"

REACH = 1_000_000
"""Positions that are run after each load."""


async def why_not_loaded(recording: Recording, qemu: Qemu) -> str:
    """Return what comes of loading a snapshot of position 0; "" when that is a good machine.

    Raises QemuError when the recording does not even replay so far without a load.
    """
    reach = min(REACH, recording.end // 2)
    async with await Replayer.start(recording, qemu) as replayer:
        before = await (await replayer.gdb()).read_registers()
        snapshot = Snapshot(TAG, 0, _filler(replayer.ram))
        await replayer.save(TAG)
        try:
            for _ in range(2):  # in a process that has not run yet, and in one that has
                await replayer.load(snapshot)
                if await (await replayer.gdb()).read_registers() != before:
                    return "Its registers differ after a load."
                await replayer.run_to(reach)
        except QemuError as error:
            return error.what
        return ""


def _filler(ram: GuestRam) -> Fill:
    """Return what makes RAM what it is now; of what is empty nothing is kept."""
    view = ram.view()
    kept = {at: bytes(view[at * MIB : (at + 1) * MIB]) for at in ram.present().nonzero()[0]}

    def fill(again: GuestRam) -> None:
        target = again.view()
        for at in again.present().nonzero()[0]:
            part = target[at * MIB : (at + 1) * MIB]
            part[:] = kept.get(at) or bytes(len(part))

    return fill
