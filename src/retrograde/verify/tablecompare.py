"""The rows of one span beside what others saw of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from numpy.typing import NDArray

from retrograde.errors import Divergence
from retrograde.machine.probe.page import LINE_BYTES, PAGE_BYTES
from retrograde.machine.probe.record import is_of_device, is_placed
from retrograde.timeline.machineview import MachineView
from retrograde.timeline.search import hit_of
from retrograde.verify.conventions import Conventions
from retrograde.verify.tablesteps import LONGEST_CODE, Seen, Span

LINES = PAGE_BYTES // LINE_BYTES


class Comparison:
    """The rows of one span beside what others saw of it."""

    def __init__(
        self,
        span: Span,
        tables: Mapping[str, Mapping[str, NDArray[Any]]],
        seen: Seen,
        conventions: Conventions,
        seed: int,
    ) -> None:
        self._span = span
        self._tables = tables
        self._seen = seen
        self._conventions = conventions
        self._seed = seed

    def blocks(self) -> None:
        """Compare how often each instruction ran, when first and when last."""
        first, last = self._span
        pcs = self._seen.pcs
        counts: Counter[int] = Counter()
        firsts: dict[int, int] = {}
        lasts: dict[int, int] = {}
        for row in self._rows("blocks"):
            inside = [pcs.get(row["first"] + n, 0) for n in range(row["instructions"])]
            self._same("blocks", row["first"], row["pc"], inside[0])
            self._same("blocks", row["last"], row["pc"], pcs.get(row["last"]))
            size = row["pc"] + row["size_bytes"] - inside[-1]
            self._same("blocks", row["first"], 0 < size <= LONGEST_CODE, True)
            for n, pc in enumerate(inside):
                counts[pc] += row["count"]
                firsts[pc] = min(firsts.get(pc, last), row["first"] + n)
                lasts[pc] = max(lasts.get(pc, first), row["last"] + n)
        ran = {position: pcs[position] for position in range(first, last)}
        self._same("blocks", first, counts, Counter(ran.values()))
        self._same("blocks", first, firsts, {pc: at for at, pc in reversed(ran.items())})
        self._same("blocks", first, lasts, {pc: at for at, pc in ran.items()})

    def calls(self) -> None:
        """Compare all columns of all calls."""
        made = sorted(self._rows("calls"), key=lambda row: int(row["position"]))
        expected = list(self._expected_calls())
        for row, other in zip(made, expected, strict=False):
            self._same("calls", other["position"], row, other)
        self._same("calls", self._span[0], len(made), len(expected))

    def context(self) -> None:
        """Compare the changes up to the end, where the last instruction's shows."""
        seen, conventions = self._seen, self._conventions

        def at(position: int) -> dict[str, int]:
            state = seen.states[position]
            return {
                "space": state[conventions.space],
                "privilege": conventions.privilege(state),
            }

        expected = [
            {"position": later, "kind": kind, "value": value}
            for earlier, later in pairwise(range(self._span[0], self._span[1] + 1))
            for kind, value in at(later).items()
            if value != at(earlier)[kind]
        ]
        if self._span[0] == 0:
            expected[:0] = [{"position": 0, "kind": k, "value": v} for k, v in at(0).items()]
        self._same("context", self._span[0], list(self._rows("context")), expected)

    def written(self, stores: NDArray[Any], view: MachineView) -> None:
        """Compare lines with all stores, and those of devices with RAM before and after."""
        made: dict[str, set[int]] = {"bitmap": set(), "device": set()}
        for row in self._rows("written"):
            for name, lines in made.items():
                first = row["page"] // LINE_BYTES
                lines |= {first + line for line in range(LINES) if row[name] >> line & 1}
        placed, unplaced = set(), set()
        for store in stores:
            if is_of_device(store):
                continue
            known = is_placed(store)
            start = int(store["vaddr"])
            places = hit_of(store).placed if known else range(start, start + int(store["size"]))
            lines = {at // LINE_BYTES for at in places}
            if known:
                placed |= lines
            else:
                unplaced |= {line % LINES for line in lines}
        more = {line for line in made["bitmap"] - placed if line % LINES not in unplaced}
        self._same("written", self._span[0], (more, placed - made["bitmap"]), (set(), set()))
        physical = view.physical(self._seen.changed * LINE_BYTES)
        changed = {int(at) // LINE_BYTES for at in physical if at >= 0}
        self._same("written", self._span[0], made["device"], changed - made["bitmap"])

    def intervals(self) -> None:
        """Compare where it begins and ends."""
        rows = [(row["first"], row["last"]) for row in self._rows("intervals")]
        self._same("intervals", self._span[0], rows, [self._span])

    def _expected_calls(self) -> Iterator[dict[str, Any]]:
        """Return the rows of calls in order, with all that becomes known of them later."""
        seen, ways = self._seen, self._conventions
        live: dict[tuple[int, ...], dict[str, Any]] = {}
        rows, depth = [], 0
        for position in range(*self._span):
            state, pc = seen.states[position], seen.pcs[position]
            kind, dropped = ways.kind(seen.codes[position])
            if not kind or not ways.is_wide(state):
                continue
            sp, led = state[ways.sp], seen.arrived[position + 1]
            space = state[ways.space] if ways.is_user(state) else 0
            follows = 0 < led - pc <= 4 and ways.link
            if follows:
                continue
            if kind == "call":
                rows.append(
                    {
                        "position": position,
                        "pc": pc,
                        "target": led,
                        "return_position": None,
                        "depth": depth,
                        "sp": sp,
                        "space": state[ways.space],
                        **{f"arg{n}": state[name] for n, name in enumerate(ways.arguments)},
                    }
                )
                back = self._after(pc, seen.codes[position])
                live[(sp, space, back) if ways.link else (sp, space)] = rows[-1]
                depth += 1
                continue
            key = (sp, space, led) if ways.link else (sp + 8 + dropped, space)
            row = live.pop(key, None)
            depth = row["depth"] if row else 0
            if row and row["pc"] < led <= row["pc"] + 7 and position + 1 < self._span[1]:
                row["return_position"] = position + 1
        return iter(rows)

    def _after(self, pc: int, code: bytes) -> int:
        """Return the address behind a call of an ISA whose instructions have 2 or 4 bytes."""
        compressed = self._conventions.space == "satp" and code[0] & 3 != 3
        return pc + (2 if compressed else 4)

    def _rows(self, table: str) -> Iterator[dict[str, Any]]:
        columns = {name: values.tolist() for name, values in self._tables[table].items()}
        for values in zip(*columns.values(), strict=True):
            yield dict(zip(columns, values, strict=True))

    def _same(self, table: str, position: int, made: object, expected: object) -> None:
        if made != expected:
            raise Divergence(
                f"The table {table} differs at {position:_} (seed {self._seed}).",
                "Please report this with the recording.",
                f"the table: {made}\nexpected: {expected}",
            )
