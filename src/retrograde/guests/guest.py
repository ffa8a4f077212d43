"""What a guest is: the files it consists of and the QEMU arguments that boot it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_WORDS = 1024
_STEP = 0x9E3779B1


@dataclass(frozen=True, slots=True)
class Pattern:
    """Known contents of guest RAM: 1024 words of 32 bits, word i being i * 0x9E3779B1.

    Every built-in guest writes it once, between its first console line and its work.
    """

    #: physical address of the first byte
    address: int
    #: byte order of each word, the guest's own
    byteorder: Literal["little", "big"]

    @property
    def data(self) -> bytes:
        """The 4096 bytes that lie at `address` once the guest wrote them."""
        words = (i * _STEP & 0xFFFFFFFF for i in range(_WORDS))
        return struct.pack(f"{'<' if self.byteorder == 'little' else '>'}{_WORDS}I", *words)


@dataclass(frozen=True, slots=True)
class Guest:
    """A guest ready to be recorded."""

    #: short name, unique within its target
    name: str
    #: QEMU's name of the target: qemu-system-TARGET runs it
    target: str
    #: one sentence: what it does
    description: str
    #: machine, memory, images and kernel command line: what the guest is. Console,
    #: display, network and icount options belong to whoever runs it.
    qemu_args: list[str]
    #: the image files `qemu_args` names
    files: tuple[Path, ...]
    #: console text when the guest's own work starts, and when it is over; empty where
    #: nothing is promised
    start: str
    done: str
    #: RAM contents to check against, None where nothing is promised
    pattern: Pattern | None = None
    #: seconds after which a guest that never ends by itself has shown what it does
    seconds: float | None = None

    @property
    def machine(self) -> str:
        """QEMU's name of the board: the type that `qemu_args` give with -M."""
        return self.qemu_args[self.qemu_args.index("-M") + 1].partition(",")[0]
