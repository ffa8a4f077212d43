"""Which clock a machine gets when nobody chooses one: what an instruction takes of its time.

Measured in `bench/clock.py`; the figures stand in docs/howto/kernel.md.
"""

from __future__ import annotations

from retrograde.recording.machinespec import Disk, File, MachineSpec, Text

FIRMWARE_SHIFT = 7
"""128 ns: firmware waits in loops, which are the shorter the longer each instruction takes."""

SYSTEM_SHIFT = 4
"""16 ns: a system's services start in time, and its ticks leave it time to work."""


def usual_shift(spec: MachineSpec) -> int:
    """Return the clock for a machine: a system's, where it starts one, or firmware's.

    A system comes with an initrd, a command line for its kernel, or on a disk. A floppy, a card
    and flash are none: what runs from them is firmware or small. Neither is `-kernel` alone, with
    which programs without a system are started.
    """
    starts_system = any(
        (isinstance(option, File) and option.name == "initrd")
        or (isinstance(option, Text) and option.name == "append")
        or (isinstance(option, Disk) and bool(option.layers) and not spec.is_synchronous(option))
        for option in spec.options
    )
    return SYSTEM_SHIFT if starts_system else FIRMWARE_SHIFT
