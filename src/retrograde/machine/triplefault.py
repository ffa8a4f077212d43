"""How an x86 guest came to reset the machine by a triple fault, in QEMU's own words.

The state it leaves does not tell: none of the exceptions was delivered. So the last
instruction is replayed once more, with QEMU's log of exceptions on. What was found is kept in
the recording's cache, where `retrograde info` looks for it: that runs nothing.
"""

from __future__ import annotations

import contextlib
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import msgspec

from retrograde.errors import QemuError, RecordingError
from retrograde.held import Scratch
from retrograde.isa.isa import X86
from retrograde.machine.segment import QUESTION, code_base
from retrograde.recording.bundle import LOG, Recording
from retrograde.recording.manifest import Line
from retrograde.recording.rrevents import Kind
from retrograde.recording.sealed import Damaged, Kept

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retrograde.machine.qemu import Qemu

FILE: Final = "triplefault.json"
_LIMIT: Final = 1 << 12
_DOUBLE_FAULT: Final = 8
_TAKEN: Final = (Kind.INTERRUPT, Kind.EXCEPTION)

# What x86_cpu_do_interrupt and check_exception write, in QEMU's target/i386/tcg.
_RAISED: Final = re.compile(r"^check_exception old: 0x([0-9a-f]+) new 0x([0-9a-f]+)$", re.M)
_CAME: Final = re.compile(r"^ *\d+: v=([0-9a-f]+) e=", re.M)
_WORDS: Final = "Triple fault\n"

_IP: Final = re.compile(r"^(?:R|E)IP=([0-9a-f]+) ", re.M)


class TripleFault(msgspec.Struct, frozen=True, kw_only=True):
    """A triple fault: `chain` is what led to it, the double fault last.

    `pc` is the linear address of the instruction that could not go on, `position` its place.
    """

    position: int
    pc: int
    chain: tuple[Line, ...]

    def __str__(self) -> str:
        """Return it as one line for people."""
        chain = " -> ".join(self.chain)
        return f"a triple fault: {chain} -> reset at {self.position:_}, pc {self.pc:#x}"


class _Found(msgspec.Struct, forbid_unknown_fields=True):
    log: str
    fault: TripleFault | None = None


def known_fault(recording: Recording) -> TripleFault | None:
    """Return what `find_fault` found before; None when there is nothing, or nobody looked."""
    found = _read(recording)
    return found.fault if found else None


async def find_fault(
    recording: Recording, qemu: Qemu, *, farthest: int | None = None
) -> TripleFault | None:
    """Find out by a replay whether a triple fault ended `recording`, and keep that.

    Only where it may have; and only in recordings of at most `farthest` instructions. What
    QEMU cannot tell, or the cache not take, counts as nothing.
    """
    known = _read(recording)
    if known or not may_be(recording) or recording.end > (farthest or recording.end):
        return known.fault if known else None
    taken = _taken_at_end(recording)
    fault = None
    if len(taken) > 1:
        with contextlib.suppress(QemuError):
            fault = await _ask(recording, qemu, taken)
    with contextlib.suppress(OSError, RecordingError):
        found = _Found(_digest(recording), fault)
        _kept(recording, make=True).write(found)
    return fault


async def _ask(recording: Recording, qemu: Qemu, taken: Sequence[Kind]) -> TripleFault | None:
    """Replay the end and return what QEMU says of it; `taken` is what the log has there."""
    from retrograde.machine.replayer import Replayer

    with Scratch() as folder:
        log = folder / "qemu.log"
        async with await Replayer.start(recording, qemu) as replayer:
            await replayer.run_to(recording.end - 1)
            answers = [
                await replayer.monitor.human(line)
                for line in (f"logfile {log}", "log int,cpu_reset")
            ]
            if any(answers):
                return None  # it may not write files
            await replayer.run_to(recording.end)
            registers = await replayer.monitor.human(QUESTION)
        said = log.read_text(errors="replace")
    ip = _IP.search(registers)
    chain = chain_of(said, taken)
    if not chain or not ip:
        return None
    pc = code_base(registers) + int(ip[1], 16)
    return TripleFault(position=recording.end, pc=pc, chain=chain)


def chain_of(said: str, taken: Sequence[Kind]) -> tuple[str, ...]:
    """Return the exceptions that QEMU's log says led to a triple fault; none where it says none.

    `taken` are the events in the recording's log, one for each. QEMU tells of exceptions as they
    are raised, before two become a double fault; of `int n` and interrupts only in protected mode.
    """
    from retrograde.machine.traps import x86_exception

    said, has_words, _ = said.partition(_WORDS)
    raised = [(int(old, 16), int(new, 16)) for old, new in _RAISED.findall(said)]
    if not has_words or not raised or raised[-1][0] != _DOUBLE_FAULT:
        return ()
    # Behind a double fault the next that is raised finds it as the one before.
    vectors: list[int] = []
    for (_, new), (old, _) in pairwise(raised):
        is_double = old == _DOUBLE_FAULT and _DOUBLE_FAULT not in vectors
        vectors.append(_DOUBLE_FAULT if is_double else new)
    vectors, count = vectors[-len(taken) :], len(taken)
    others = taken[: count - len(vectors)]
    came = [int(vector, 16) for vector in _CAME.findall(said)][-count:]
    first = [
        _named(kind, came[number] if len(came) == count else None)
        for number, kind in enumerate(others)
    ]
    return (*first, *map(x86_exception, vectors))


def _named(kind: Kind, vector: int | None) -> str:
    name = "interrupt" if kind == Kind.INTERRUPT else "int"
    return name if vector is None else f"{name} {vector:#x}"


def may_be(recording: Recording) -> bool:
    """Whether a triple fault may have ended it, as far as the manifest tells.

    Of several processors QEMU does not say whose it was.
    """
    manifest = recording.manifest
    return (
        manifest.complete
        and manifest.ending == "guest-reset"
        and manifest.machine.target in X86
        and manifest.machine.vcpus == 1
        and recording.end > 0
    )


def _taken_at_end(recording: Recording) -> list[Kind]:
    """Return the interrupts and exceptions at the end of a recording, in their order."""
    import numpy as np

    found: list[Kind] = []
    for batch in recording.log().batches():
        at_end = (batch.position == recording.end) & np.isin(batch.kind, _TAKEN)
        found += [Kind(kind) for kind in batch.kind[at_end].tolist()]
    return found


def _digest(recording: Recording) -> str:
    recorded = recording.manifest.files.get(LOG)
    return recorded.sha256 if recorded else ""


def _kept(recording: Recording, *, make: bool = False) -> Kept[_Found]:
    return Kept(recording.open_cache(make=make), FILE, _Found, _LIMIT)


def _read(recording: Recording) -> _Found | None:
    with contextlib.suppress(OSError, RecordingError, Damaged):
        found = _kept(recording).read()
        return found if found.log == _digest(recording) else None
    return None
