"""Where the guest's Linux kernel lies, found in its memory: with KASLR that is nowhere else.

A kernel is placed by the addresses of its anchors, the beginning of its image and of its
code. It tells them to crash dumps (VMCOREINFO), and they are in the symbol table it has for
its own oopses (see `kallsyms`). Memory is that of the last checkpoint, or, where no kernel
is told there, at the end of the recording: some have no checkpoint but the first.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from retrograde.index.symbols.entrypoints import handlers
from retrograde.index.symbols.kallsyms import ANCHORS, BYTE_ORDERS, Ram, Symbol, find_symbols
from retrograde.machine.compat import qemu_for
from retrograde.machine.ram import MIB
from retrograde.portal import LoopThread
from retrograde.recording.bundle import Recording
from retrograde.recording.rrlog import MAX_POSITION
from retrograde.timeline.opening import checkpoints_of
from retrograde.timeline.pages import RamImage
from retrograde.timeline.store import CheckpointStore
from retrograde.timeline.storefiles import Checkpoint
from retrograde.timeline.timeline import Timeline

Progress = Callable[[int], None]
Found = TypeVar("Found")

# "SYMBOL(_stext)=ffffffff81000000", written by kernel/crash_core.c.
_VMCOREINFO: Final = re.compile(rb"SYMBOL\((_stext|_text)\)=([0-9a-f]{8,16})\n")
_CODE_BYTES: Final = 32 << 20
"""As much code as follows an anchor, about: what points there is a sign that a kernel runs."""


class Memory(NamedTuple):
    """RAM in which a kernel may be, and the checkpoints: where code ran."""

    ram: Ram
    checkpoints: Sequence[Checkpoint]


def last_memory(
    recording: Recording, progress: Progress | None = None
) -> tuple[Memory, Callable[[bytes], bool]]:
    """Return the RAM of the last checkpoint, and whether bytes were in memory.

    A recording without checkpoints gets them, which takes a replay: `progress` is told
    positions. Raises as `Timeline.open` does.
    """
    qemu = qemu_for(recording)
    loop = LoopThread()
    try:
        store = loop.run(checkpoints_of(recording, qemu, progress=progress))
    finally:
        loop.close()
    with contextlib.closing(store):
        ram = unfold(last_ram(store), recording.manifest.ram.bytes)

    def has(content: bytes) -> bool:
        return store.pages.has(content) or ram.find(content, 0) >= 0

    return Memory(ram, store.checkpoints), has


async def found_in_memory(timeline: Timeline, find: Callable[[Memory], Found]) -> Found:
    """Return what `find`, in a thread, finds in the RAM of the last checkpoint, or else at the end.

    The machine's RAM must be seen. The cursor stays where it is.
    """
    store = timeline.store

    def at_checkpoint() -> Found:
        ram = unfold(last_ram(store), timeline.recording.manifest.ram.bytes)
        return find(Memory(ram, store.checkpoints))

    def at_end(ram: NDArray[np.uint8]) -> Found:
        return find(Memory(ram.tobytes(), store.checkpoints))

    found = await asyncio.to_thread(at_checkpoint)
    if found:
        return found
    async with await Timeline.on(timeline.history, at=timeline.end, walks=False) as last:
        return await last.in_ram(at_end)


class Kernels:
    """The anchors of the kernels of a recording: after a kexec there is another one."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._last: dict[str, int] | None = None
        self._by_handlers: dict[tuple[int, ...], dict[str, int]] = {}

    async def anchors(self, ran: Mapping[str, int]) -> dict[str, int]:
        """Return the anchors of the kernel with the handlers `ran`; empty where it is not known.

        Without handlers of that which ran last.
        """
        if not self._timeline.recording.manifest.ram.seen:
            return {}
        if self._last is None:
            self._last = await found_in_memory(self._timeline, find_anchors)
        if not ran or _is_around(self._last, ran):
            return self._last
        key = tuple(ran.values())
        if key not in self._by_handlers:
            self._by_handlers[key] = await self._timeline.in_ram(
                lambda ram: _anchors_around(ram.tobytes(), ran)
            )
        return self._by_handlers[key]


def _anchors_around(ram: Ram, ran: Mapping[str, int]) -> dict[str, int]:
    """Return those anchors in memory that are of the kernel with these handlers."""
    told = [{name.decode(): int(value, 16)} for name, value in _VMCOREINFO.findall(ram)]
    fitting = (one for one in told if _is_around(one, ran))
    if found := next(fitting, None):
        return found
    tables = (anchors_of(table) for table in find_symbols(ram))
    return next((one for one in tables if _is_around(one, ran)), {})


def _is_around(anchors: Mapping[str, int], ran: Mapping[str, int]) -> bool:
    """Whether handlers lie in the code that begins at the anchors."""
    start = min(anchors.values(), default=-1)
    return start >= 0 and all(0 <= at - start < _CODE_BYTES for at in ran.values())


def last_ram(store: CheckpointStore) -> RamImage | None:
    """Return the RAM of the last checkpoint that is whole; None where there is none."""
    last = store.before(MAX_POSITION)
    return store.ram_of(last) if last else None


def unfold(image: RamImage | None, size: int) -> mmap.mmap:
    """Return `size` bytes of RAM as they are in `image`, zeros without one."""
    ram = mmap.mmap(-1, size)
    if image:
        # All of it is zero, also where no memory is behind it yet.
        image.fill(np.frombuffer(ram, np.uint8), np.zeros(-(-size // MIB), np.bool_))
    return ram


def was_in_memory(store: CheckpointStore, content: bytes) -> bool:
    """Whether bytes were in RAM at any checkpoint; across pages, at the last."""
    if store.pages.has(content):
        return True
    return unfold(last_ram(store), store.pages.ram_bytes).find(content, 0) >= 0


def find_anchors(memory: Memory) -> dict[str, int]:
    """Return the addresses of the anchors of the kernel that ran; empty where there is none."""
    return anchors_told(memory) or anchors_of(likeliest_table(memory))


def anchors_of(symbols: Iterable[Symbol]) -> dict[str, int]:
    """Return those of the symbols that are anchors."""
    return {symbol.name: symbol.address for symbol in symbols if symbol.name in ANCHORS}


def anchors_told(memory: Memory) -> dict[str, int]:
    """Return the anchors as the kernel that ran tells them to crash dumps."""
    told = {(name.decode(), int(value, 16)) for name, value in _VMCOREINFO.findall(memory.ram)}
    words = _words(memory.checkpoints)

    def votes(anchor: tuple[str, int]) -> int:
        return _count(words, anchor[1], anchor[1] + _CODE_BYTES)

    return dict(sorted(told, key=votes))  # the likeliest last: it stays


async def symbols_here(timeline: Timeline) -> list[Symbol]:
    """Return the symbols of the kernel that is current at the cursor, else of the likeliest.

    The machine's RAM must be seen.
    """
    ran = await handlers(timeline)
    found = await found_in_memory(timeline, lambda memory: likeliest_table(memory, ran))
    if not ran or _is_around(anchors_of(found), ran):
        return found
    here = await timeline.in_ram(lambda ram: likeliest_table(Memory(ram.tobytes(), ()), ran))
    return here or found


def likeliest_table(memory: Memory, ran: Mapping[str, int] = MappingProxyType({})) -> list[Symbol]:
    """Return the symbols of the kernel that ran; other tables are of copies or nested guests.

    They are those of the code around the handlers `ran`, or that the registers point into most
    often.
    """
    tables = list(find_symbols(memory.ram))
    words = _words(memory.checkpoints) if len(tables) > 1 else np.zeros(0, np.uint64)

    def votes(table: list[Symbol]) -> tuple[bool, int]:
        code = [symbol.address for symbol in table if symbol.type in "Tt"]
        is_around = bool(ran) and _is_around(anchors_of(table), ran)
        return is_around, _count(words, min(code), max(code)) if code else 0

    return max(tables, key=votes, default=[])


def _count(words: NDArray[np.uint64], first: int, last: int) -> int:
    return int(np.count_nonzero((words >= first) & (words <= min(last, (1 << 64) - 1))))


def _words(checkpoints: Sequence[Checkpoint]) -> NDArray[np.uint64]:
    """Return all registers of all checkpoints, in both byte orders."""
    words = (word for checkpoint in checkpoints for word in _registers(checkpoint.registers))
    return np.fromiter(words, np.uint64)


def _registers(packet: str) -> Iterator[int]:
    data = bytes.fromhex(packet)
    for at in range(0, len(data) - 7, 8):
        for order in BYTE_ORDERS:
            yield int.from_bytes(data[at : at + 8], order)
