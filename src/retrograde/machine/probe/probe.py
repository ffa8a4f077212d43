"""The probe's Python side: arm it, load a checkpoint, run, read what it saw.

::

    probe = Probe(require_probe(qemu), exceptions, interrupts)  # positions, of the log
    ... start QEMU with pass_fds=[probe.fd] and -plugin probe.argument ...
    probe.arm(breakpoints=[Breakpoint(0xffffffff81000000)], span=(start, stop))
    ... loadvm, run ...
    probe.hits()["position"][-1]

QEMU compiles the probe's work into its translated code, so what `arm` asks for begins
at the next load of a snapshot (any `loadvm`: it discards all translations). docs/probe.md
tells what is exact and what the probe cannot see.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from retrograde.errors import InternalError, QemuError, UsageError
from retrograde.machine.probe import page as layout
from retrograde.machine.probe.moments import KEPT_BYTES, PAGES_A_MOMENT, Kept, tables_of
from retrograde.machine.probe.page import MOMENT_PAGES, Feature, RecordFlag
from retrograde.machine.probe.record import touches
from retrograde.machine.probe.request import Breakpoint, Memory, Watch, tables

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_BREAKPOINTS = 1 << 16
MAX_WATCHES = 1 << 12
MAX_REGISTERS = 512
MAX_CODE = 1 << 20
MAX_RANGES = 64
MAX_SEEN = 64


@dataclass(frozen=True, slots=True)
class Capacity:
    """Records kept of each kind; the newest stay.

    Memory is used as they come: hits and writes 64 bytes each, steps 16, changes 32. Of
    what probe.coverage reads, the rest, the first stay: blocks 40 bytes, calls 104, contexts
    24, traps 64; `pages` of physical memory 16.
    """

    hits: int = 1 << 20
    writes: int = 1 << 21
    steps: int = 1 << 21
    changes: int = 1 << 21
    blocks: int = 1
    pages: int = 1
    calls: int = 1
    contexts: int = 1
    traps: int = 1 << 10
    moments: int = 1 << 11


@dataclass(frozen=True, slots=True)
class ProbeFacts:
    """What the probe says about itself.

    `active` is whether it does what was armed last, `active_from` the position from which its
    records are complete. `registers_exact` is False when a logged pc or flags register may be
    stale. `translated` are blocks. `deliveries_missed` are interrupts and exceptions in the span
    whose pushes are not recorded, if they push: all but x86 in long or real mode; where `memory`
    is armed few of those in protected mode and of m68k. `faults` and `reruns` are instructions
    begun twice and counted once. `surprises` are positions found wrong and set right late,
    `surprise_position` the last: anything but 0 means positions since the load are not to be
    trusted. `audited` blocks were compared with QEMU's count (when armed with `audit`),
    `audit_errors` of them differed, first at `audit_position`. `unplaced` stores were to physical
    addresses that are not known, `overflows` counts what had no room; both only concern
    probe.coverage.
    """

    loaded: bool
    api: int
    active: bool
    active_from: int
    registers_exact: bool
    translated: int
    deliveries_missed: int
    faults: int
    reruns: int
    surprises: int
    surprise_position: int
    audited: int
    audit_errors: int
    audit_position: int
    unplaced: int
    overflows: int


class Probe:
    """One probe for one QEMU process. `close` gives the memory back.

    `exceptions` and `interrupts` are the positions of the rr log's EXCEPTION and INTERRUPT
    events. Without the first, faulting instructions are counted twice; without the
    second, what interrupts push on the stack is not seen.
    """

    def __init__(
        self,
        library: Path,
        exceptions: NDArray[np.uint64],
        interrupts: NDArray[np.uint64],
        *,
        capacity: Capacity | None = None,
        big_endian: bool = False,
    ) -> None:
        capacity = capacity or Capacity()
        self._library = library
        self._capacity = {
            "exceptions": len(exceptions),
            "deliveries": len(exceptions) + len(interrupts),
            "breakpoints": MAX_BREAKPOINTS,
            "watches": MAX_WATCHES,
            "conditions": MAX_BREAKPOINTS,
            "registers": MAX_REGISTERS,
            "expressions": MAX_BREAKPOINTS,
            "code": MAX_CODE,
            "hits": capacity.hits,
            "writes": capacity.writes,
            "steps": capacity.steps,
            "changes": capacity.changes,
            "blocks": capacity.blocks,
            "written": capacity.pages,
            "touched": capacity.pages,
            "calls": capacity.calls,
            "contexts": capacity.contexts,
            "traps": capacity.traps,
            "chosen": capacity.moments,
            "ram": MAX_RANGES,
            "seen": MAX_SEEN,
            "moments": capacity.moments,
            "moment_registers": capacity.moments * KEPT_BYTES,
            "moment_pages": capacity.moments * PAGES_A_MOMENT,
        }
        self._offsets, size = self._lay_out()
        self.fd = os.memfd_create("probe", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, size)
        # Or QEMU could take the memory away from under us, which ends a process (SIGBUS).
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
        self._map = mmap.mmap(self.fd, size)
        self._header: Any = np.frombuffer(self._map, dtype=layout.HEADER, count=1)[0:1]
        self._set(magic=layout.PAGE_MAGIC, version=layout.PAGE_VERSION, bytes=size)
        self._set(big_endian=int(big_endian), until=layout.FOREVER)
        for name, offset in self._offsets.items():
            self._header[name] = (offset, self._capacity[name], 0)
        self._fill("exceptions", np.sort(exceptions))
        self._fill("deliveries", np.sort(np.concatenate([exceptions, interrupts])))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    @property
    def argument(self) -> str:
        """The value of QEMU's -plugin; QEMU must inherit `fd`."""
        return f"{str(self._library).replace(',', ',,')},fd={self.fd}"

    def arm(
        self,
        *,
        breakpoints: Iterable[Breakpoint] = (),
        watches: Iterable[Watch] = (),
        registers: Sequence[str] = (),
        writes: bool = False,
        steps: bool = False,
        audit: bool = False,
        coverage: Feature = Feature(0),  # noqa: B008 - a constant
        moments: Kept | None = None,
        memory: Memory | None = None,
        span: tuple[int, int] = (0, layout.FOREVER),
    ) -> None:
        """Say what to record at positions in [span[0], span[1]), from the next load on.

        Replaces what was armed and clears all records. `writes` logs every store, `memory`
        stores and what else tells memory at each position, `steps` every instruction,
        `registers` every change of those registers; `audit`
        compares the position of every block with QEMU's own count; `coverage` are those of
        BLOCKS, WRITTEN, CALLS, CONTEXT and TRAPS that probe.coverage is to read; `moments` says
        what to keep at hits of breakpoints (probe.moments). Outside the span only
        instructions are counted (before) or nothing is done (after).
        """
        if not 0 <= span[0] <= span[1] <= layout.FOREVER:
            raise UsageError(
                f"[{span[0]:_}, {span[1]:_}) is not a span of positions.",
                "Give 0 <= first <= last.",
            )
        names = moments.names if moments else registers
        filled = tables(breakpoints, watches, names)
        if moments:
            filled |= tables_of(moments)
        if memory:
            filled |= memory.tables()
        for name, rows in filled.items():
            if len(rows) > self._capacity[name]:
                raise UsageError(
                    f"{len(rows):_} {name} are too many for the probe.",
                    f"At most {self._capacity[name]:_} can be armed at once.",
                )
        for name, rows in filled.items():
            self._fill(name, rows)
        wanted = {
            Feature.COUNT: True,
            Feature.BREAK: len(filled["breakpoints"]) > 0,
            Feature.WATCH: len(filled["watches"]) > 0,
            Feature.REGISTERS: len(registers) > 0 or (memory is not None and memory.places != ()),
            Feature.WRITES: writes or memory is not None,
            Feature.MEMORY: memory is not None,
            Feature.STEPS: steps,
            Feature.AUDIT: audit,
            Feature.MOMENTS: moments is not None,
        }
        if moments:
            self._set(kept_registers=len(names), kept_bytes=moments.size)
            self._set(pointers=moments.pointers)
        self._set(**{"from": span[0], "until": span[1]})
        self._change_features(sum(feature for feature, yes in wanted.items() if yes) | coverage)

    def disarm(self) -> None:
        """Do nothing from the next load on: QEMU then runs at its plain speed."""
        self._change_features(0)

    @contextlib.contextmanager
    def paused(self) -> Iterator[bool]:
        """Have QEMU run without the probe; what is armed begins at the next load after that.

        Gives whether this QEMU does so: it has to drop the code that has the probe in it.
        """
        features = int(self._get("features"))
        self._set(features=0)
        try:
            yield self.drop_code()
        finally:
            self._set(features=features)

    def reset(self) -> None:
        """Forget all records; what is armed stays."""
        coverage = ("blocks", "calls", "contexts", "traps")
        for name in (*layout.RINGS, *coverage, "moments", "moment_pages"):
            self._header[name]["total"] = 0
        self._set(audited=0, audit_errors=0, surprises=0, unplaced=0, overflows=0)
        self._set(faults=0, reruns=0, translated=0, deliveries_missed=0)

    def hits(self) -> NDArray[np.void]:
        """Return breakpoints reached and watched accesses, oldest first (dtype RECORD).

        `which` is the index of the watch, or of the breakpoint in ascending order of pc.
        """
        return self.placed(self._records("hits"))

    def placed(self, hits: NDArray[np.void]) -> NDArray[np.void]:
        """Return those of `hits` that do concern a watch, each event once.

        For physical watches the probe had to guess which pushes may; now it is known. A
        push has a record for each watch it may concern.
        """
        is_push = hits["flags"] & RecordFlag.DELIVERY != 0
        if not is_push.any():
            return hits
        which = np.where(is_push, hits["which"], 0)
        self._require(bool((which < MAX_WATCHES).all()))
        watch = self._area("watches")[which]
        known = is_push & (hits["flags"] & RecordFlag.NO_PADDR == 0) & (watch["physical"] != 0)
        kept = hits[~known | touches(hits, watch["first"], watch["last"])]
        again = np.zeros(len(kept), np.bool_)
        again[1:] = kept["flags"][1:] & RecordFlag.DELIVERY != 0
        for name in ("position", "vaddr", "flags"):
            again[1:] &= kept[name][1:] == kept[name][:-1]
        chosen: NDArray[np.void] = kept[~again]
        return chosen

    def last_hit(self) -> np.void | None:
        """Return the newest hit, or None."""
        hits = self.hits()
        return hits[-1] if len(hits) else None

    def writes(self) -> NDArray[np.void]:
        """Return the logged stores, oldest first (dtype RECORD)."""
        return self._records("writes")

    def steps(self) -> NDArray[np.void]:
        """Return the logged instructions, oldest first (dtype STEP).

        A position occurs twice when the first instruction there faulted.
        """
        return self._records("steps")

    def changes(self) -> NDArray[np.void]:
        """Return the logged register changes, oldest first (dtype CHANGE)."""
        return self._records("changes")

    def moments(self) -> tuple[NDArray[np.void], NDArray[Any], NDArray[Any]]:
        """Return what was kept at hits, in place: for probe.moments to read."""
        self._require_active()
        rows = self.rows("moments").copy()
        pages = self._area("moment_pages")
        used = np.arange(MOMENT_PAGES) < rows["pages"][:, None]
        self._require(bool((rows["pages"] <= MOMENT_PAGES).all()))
        self._require(bool((rows["page"]["number"][used] < len(pages)).all()))
        return rows, self._area("moment_registers"), pages

    def since(self, kind: Literal["hits", "writes"], number: int) -> NDArray[np.void] | None:
        """Return a copy of the records from `number` on, as counted since they were cleared.

        None when some of them are overwritten.
        """
        total, capacity = self.total(kind), self._capacity[kind]
        if total - number > capacity:
            return None
        self._require_active()
        ring, at, end = self._area(kind), number % capacity, number % capacity + total - number
        return np.concatenate([ring[at:end], ring[: max(0, end - capacity)]])

    def total(self, kind: Literal["hits", "writes", "steps", "changes"]) -> int:
        """Return how many records of a kind there were, kept or overwritten."""
        return int(self._header[kind]["total"][0])

    def kept_all(self, kind: Literal["hits", "writes", "steps", "changes"]) -> bool:
        """Whether no record of a kind was overwritten by newer ones."""
        return self.total(kind) <= self._capacity[kind]

    def facts(self) -> ProbeFacts:
        """Return what the probe says about itself."""
        return ProbeFacts(
            loaded=self._get("loaded") == layout.PAGE_VERSION,
            api=self._get("api"),
            active=self._get("active_generation") == self._get("generation"),
            active_from=self._get("active_from"),
            registers_exact=not self._get("registers_doubtful"),
            translated=self._get("translated"),
            deliveries_missed=self._get("deliveries_missed"),
            faults=self._get("faults"),
            reruns=self._get("reruns"),
            surprises=self._get("surprises"),
            surprise_position=self._get("surprise_position"),
            audited=self._get("audited"),
            audit_errors=self._get("audit_errors"),
            audit_position=self._get("audit_position"),
            unplaced=self._get("unplaced"),
            overflows=self._get("overflows"),
        )

    def rows(self, name: str) -> NDArray[Any]:
        """Return one of the tables COVERED in place, as far as the probe filled it."""
        rows = self._area(name)
        return rows if name == "written" else rows[: int(self._header[name]["total"][0])]

    def touched(self) -> NDArray[Any]:
        """Return the numbers of the pages that `written` has something of, in a copy."""
        pages = self.rows("touched").copy()
        self._require(bool((pages < self._capacity["written"]).all()))
        return pages

    def begin_epoch(self) -> None:
        """Have coverage begin anew from here on, with calls and contexts forgotten.

        The machine must be stopped. Blocks stay known: their counts are the caller's to
        clear, as are `written` and its list.
        """
        for name in ("touched", "calls", "contexts", "traps"):
            self._header[name]["total"] = 0
        self._set(epoch=self._get("epoch") + 1, unplaced=0, deliveries_missed=0)

    def drop_code(self) -> bool:
        """Have QEMU translate all of the guest's code anew when the machine runs next.

        For a load that left what was translated before (Replayer.kept_code); the machine
        must be stopped. Returns False where this QEMU cannot be made to.
        """
        self._set(kept_loads=self._get("kept_loads") + 1)
        return bool(self._get("drops_code"))

    def close(self) -> None:
        """Give the memory back, unless a caller still holds records in place."""
        if self.fd < 0:
            return
        os.close(self.fd)
        self.fd = -1
        self._header = None

    # ------------------------------------------------------------------------------

    def _lay_out(self) -> tuple[dict[str, int], int]:
        offsets, at = {}, layout.HEADER_BYTES
        for name, count in self._capacity.items():
            offsets[name] = at
            at += (count * layout.ELEMENT[name].itemsize + 63) // 64 * 64
        return offsets, at

    def _set(self, **values: int) -> None:
        for name, value in values.items():
            # What is added up may have been changed by QEMU.
            self._header[name] = value & layout.FOREVER

    def _get(self, name: str) -> int:
        return int(self._header[name][0])

    def _area(self, name: str) -> NDArray[Any]:
        return np.frombuffer(
            self._map,
            dtype=layout.ELEMENT[name],
            count=self._capacity[name],
            offset=self._offsets[name],
        )

    def _fill(self, name: str, values: NDArray[Any]) -> None:
        self._area(name)[: len(values)] = values
        self._header[name]["total"] = len(values)

    def _change_features(self, features: int) -> None:
        self.reset()
        self._set(features=features, generation=self._get("generation") + 1)

    def _require_active(self) -> None:
        if not self.facts().active:
            raise InternalError("The probe was armed and no snapshot was loaded and run since.")

    @staticmethod
    def _require(sense: bool) -> None:
        if not sense:
            raise QemuError(
                "What QEMU left in the probe's memory makes no sense.",
                "Do not trust the recording if it is not yours; report this if it is.",
            )

    def _records(self, name: str) -> NDArray[np.void]:
        self._require_active()
        unknown = self._get("unknown_register")
        if unknown:
            self._require(unknown <= MAX_REGISTERS)
            what = self._area("registers")[unknown - 1].decode(errors="replace")
            raise UsageError(f"QEMU knows no register {what!r}.", "See `info registers` in gdb.")
        total, capacity = int(self._header[name]["total"][0]), self._capacity[name]
        records = self._area(name)
        if total <= capacity:
            return records[:total]
        return np.roll(records, -(total % capacity))
