"""Replays intervals on one seat and gives the rows of the tables made by replaying.

A replay goes through neighbouring intervals without loading a state in between: QEMU
would have to translate all code anew. The rows of an interval do not depend on where the
replay began.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from retrograde.errors import InternalError
from retrograde.index.tables.files import Interval
from retrograde.isa.isa import PUSHES_NOTHING
from retrograde.machine.probe.coverage import ALL, Coverage, Covered
from retrograde.machine.probe.page import LINE_BYTES, PAGE_BYTES
from retrograde.machine.traps import columns_of
from retrograde.timeline.machineview import MachineView
from retrograde.timeline.pages import RamImage
from retrograde.timeline.seat import Progress, Seat

Columns = Mapping[str, NDArray[Any]]

REPLAYED: Final = ("calls", "blocks", "written", "context", "traps", "intervals")
"""The tables that one replay of an interval makes."""

CONTEXTS: Final = np.array(["space", "privilege"], object)


@dataclass(frozen=True)
class _Ran:
    """An interval replayed to its end, but for what its last instruction did.

    `covered` is as `_by_function` made it.
    """

    interval: Interval
    covered: Covered
    device: tuple[NDArray[np.uint64], NDArray[np.uint64]]
    traps: Columns


async def sweep(
    seat: Seat, view: MachineView, run: Sequence[Interval], progress: Progress | None = None
) -> AsyncIterator[tuple[Interval, dict[str, Columns]]]:
    """Replay `run`, intervals one after the other, and yield the tables of each.

    There must be a checkpoint where the first one begins, or it begins at 0. The seat
    must carry a probe with room for coverage.
    """
    if seat.probe is None:
        raise InternalError("An index cannot be built without the probe.")
    coverage, target = Coverage(seat.probe, ALL), seat.recording.manifest.machine.target
    start, stop = run[0][0], run[-1][1]
    coverage.arm(start)
    await seat.go(start, load=True)
    before, waiting = image_at(seat, start), None
    for interval in run:
        await seat.run_on(interval[1], progress)
        covered, late = _by_function(coverage.take(), interval[0])
        after = image_at(seat, interval[1])
        device = unexplained(covered, changed_lines(before, after, view))
        if waiting:
            yield waiting.interval, _tables(waiting, covered, late, target)
        traps = _traps(covered, interval, seat, target)
        before, waiting = after, _Ran(interval, covered, device, traps)
    if stop < seat.recording.end:  # what the last instruction did shows at the next one
        await seat.run_on(min(seat.facts.clear_from(stop + 1), seat.recording.end))
    if waiting:
        covered, late = _by_function(coverage.take(), stop)
        yield waiting.interval, _tables(waiting, covered, late, target)
    seat.probe.disarm()


def image_at(seat: Seat, position: int) -> RamImage:
    """Return the RAM at `position`, where `seat` stands: a checkpoint's if there is one."""
    store, checkpoint = seat.store, seat.store.before(position)
    like = store.table(checkpoint) if checkpoint else store.pages.empty_table()
    return store.ram_at(position) or seat.ram_image(like)


def changed_lines(
    before: RamImage, after: RamImage, view: MachineView
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the physical pages that differ, by number, and the lines of each that do."""
    pages, bits = before.lines_changed(after, LINE_BYTES)
    places = view.physical(pages * PAGE_BYTES)
    known = np.flatnonzero(places >= 0)
    order = known[np.argsort(places[known])]
    return (places[order] // PAGE_BYTES).astype(np.uint64), bits[order]


def unexplained(
    covered: Covered, changed: tuple[NDArray[np.uint64], NDArray[np.uint64]]
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return those of the `changed` lines that no store was to."""
    pages, bits = changed
    at = np.searchsorted(covered.pages, pages)
    inside = at < len(covered.pages)
    inside[inside] = covered.pages[at[inside]] == pages[inside]
    stored = np.zeros(len(pages), np.uint64)
    stored[inside] = covered.lines[at[inside]]
    left = bits & ~stored
    return pages[left != 0], left[left != 0]


def _tables(ran: _Ran, later: Covered, late: NDArray[Any], target: str) -> dict[str, Columns]:
    """Return the columns of each table.

    `later` is what was seen after the interval, `late` the calls by its last instruction.
    """
    first, last = ran.interval
    blocks = ran.covered.blocks
    blocks = blocks[np.lexsort((blocks["size"], blocks["pc"]))]
    executed = int((blocks["count"] * blocks["instructions"]).sum())
    if executed != last - first:
        raise InternalError(f"The probe saw {executed:_} instructions from {first:_} to {last:_}.")
    missing = ran.covered.unplaced
    missing += 0 if target in PUSHES_NOTHING else ran.covered.deliveries_missed
    return {
        "calls": _calls(ran.covered.calls, late),
        "blocks": _blocks(first, blocks),
        "written": _written(first, ran),
        "context": _context(ran, later),
        "traps": ran.traps,
        "intervals": {
            "first": np.array([first], np.int64),
            "last": np.array([last], np.int64),
            "unplaced": np.array([missing], np.int64),
            "code": np.array([_digest(blocks)], np.uint64),
        },
    }


def _by_function(covered: Covered, first: int) -> tuple[Covered, NDArray[Any]]:
    """Return what ran from `first` on with the calls of each function together, and the rest.

    The rest are the calls by the instruction before `first`, which show only after it. All
    calls of a busy interval are 100 MB: they are not kept twice.
    """
    begin = np.searchsorted(covered.calls["position"], np.uint64(first))
    calls = covered.calls[begin:]
    ordered = calls.take(_stable_order(calls["target"]))
    return replace(covered, calls=ordered), covered.calls[:begin].copy()


def _calls(calls: NDArray[Any], late: NDArray[Any]) -> Columns:
    """Return the calls of each function together: one asked for is in few groups of rows."""
    if len(late):
        places = np.searchsorted(calls["target"], late["target"], side="right")
        calls = np.insert(calls, places, late)
    return {
        "position": calls["position"].view(np.int64),
        "pc": calls["pc"],
        "target": calls["target"],
        "return_position": np.ma.masked_equal(calls["returned"].view(np.int64), 0),
        "depth": calls["depth"].view(np.int32),
        "sp": calls["sp"],
        "space": calls["space"],
        **{f"arg{n}": calls["arguments"][:, n] for n in range(6)},
    }


def _stable_order(keys: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Return what a stable `argsort` does, digit by digit: in half the time."""
    order, keys = np.arange(len(keys)), np.ascontiguousarray(keys)
    for shift in range(0, 64, 16):
        digits = (keys >> np.uint64(shift)).astype(np.uint16)
        if len(digits) and digits.min() != digits.max():
            order = order[np.argsort(digits[order], kind="stable")]
    return order


def _blocks(first: int, blocks: NDArray[Any]) -> Columns:
    return {
        "interval_first": np.full(len(blocks), first, np.int64),
        "pc": blocks["pc"],
        "size_bytes": blocks["size"].astype(np.int32),
        "instructions": blocks["instructions"].astype(np.int32),
        "first": blocks["first"].astype(np.int64),
        "last": blocks["last"].astype(np.int64),
        "count": blocks["count"].astype(np.int64),
    }


def _written(first: int, ran: _Ran) -> Columns:
    pages = np.union1d(ran.covered.pages, ran.device[0])
    stored, device = np.zeros((2, len(pages)), np.uint64)
    stored[np.searchsorted(pages, ran.covered.pages)] = ran.covered.lines
    device[np.searchsorted(pages, ran.device[0])] = ran.device[1]
    return {
        "interval_first": np.full(len(pages), first, np.int64),
        "page": pages * np.uint64(PAGE_BYTES),
        "bitmap": stored,
        "device": device,
    }


def _context(ran: _Ran, later: Covered) -> Columns:
    """Return the changes, that by the interval's last instruction included.

    That one shows as what is so when the next interval begins. What was so before the
    first interval began is a change at 0.
    """
    first, last = ran.interval
    seen = ran.covered.contexts
    latest = {row["kind"]: row["value"] for row in seen}
    next_ones = later.contexts[(later.contexts["position"] == last)]
    changed = [row["value"] != latest.get(row["kind"]) for row in next_ones]
    kept = np.concatenate(
        [seen[(seen["initial"] == 0) | (first == 0)], next_ones[np.array(changed, bool)]]
    )
    return {
        "position": kept["position"].astype(np.int64),
        "kind": CONTEXTS[kept["kind"]],
        "value": kept["value"],
    }


def _traps(covered: Covered, interval: Interval, seat: Seat, target: str) -> Columns:
    """Return what was taken in an interval; nothing is where one begins, but at the end it may."""
    taken, (first, last) = seat.facts.taken, interval
    side: Literal["left", "right"] = "right" if last == seat.recording.end else "left"
    low, high = np.searchsorted(taken, first), np.searchsorted(taken, last, side)
    rows = covered.traps.copy()
    rows = rows[(rows["number"] >= low) & (rows["number"] < high)]
    rows["number"] -= np.uint64(low)
    return columns_of(rows, taken[low:high], seat.facts.are_exceptions[low:high], target)


def _digest(blocks: NDArray[Any]) -> int:
    """Return a digest of which blocks ran how often."""
    digest = blake2b(digest_size=8)
    for name in ("pc", "size", "instructions", "count"):
        digest.update(np.ascontiguousarray(blocks[name]).tobytes())
    return int.from_bytes(digest.digest(), "little")
