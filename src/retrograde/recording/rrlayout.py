"""What differs between the versions of QEMU's rr log, as data.

QEMU raises the version in the log's header (REPLAY_VERSION in its replay/replay.c) with
every change of the format and reads no other than its own. The kinds of events are the
same in all versions here, and so are all payloads but two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout of logs of one `version`; `qemu` says which releases write them.

    `tagged_keys`: a key in an INPUT event (replay/replay-input.c) is a u32 that tells its
    kind, 0 for a u64 scan code and 1 for a u32 QKeyCode, and then that; without it, a u32
    key code of Linux. `ring_index`: an AUDIO_IN event (replay/replay-audio.c) has a u64
    index in QEMU's ring buffer between the number of its frames and the frames.
    """

    version: int
    qemu: str
    tagged_keys: bool
    ring_index: bool

    @property
    def header(self) -> bytes:
        """The header of a finished log."""
        return self.version.to_bytes(4, "big") + bytes(HEADER_BYTES - 4)


HEADER_BYTES: Final = 12

FIRST: Final = Layout(0x00E0200C, "7.2 to 10.2", tagged_keys=True, ring_index=True)
LAYOUTS: Final = {
    layout.version: layout
    for layout in (
        FIRST,
        Layout(0x00E0200D, "11.0", tagged_keys=True, ring_index=False),
        Layout(0x00E0200E, "11.1", tagged_keys=False, ring_index=False),
    )
}


def known_qemus() -> str:
    """Return, for messages, which QEMUs write logs that can be read."""
    return ", ".join(f"{one.qemu} ({version:#010x})" for version, one in LAYOUTS.items())
