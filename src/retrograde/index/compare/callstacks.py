"""The table `calls`, stack by stack, with where interrupts came.

What a stack is nothing tells, so a page of stack stands for it: what one thread calls from
one page of its stack comes in its own order, however often others run in between. Below
the middle of the address space, where programs have theirs, each address space has its own
pages; these go by the order in which they are first seen, because their numbers are where
their tables are in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from retrograde.errors import UsageError
from retrograde.index.compare.align import Calls
from retrograde.index.tables.logtables import build_log_tables
from retrograde.index.tables.store import IndexStore
from retrograde.machine.probe.page import PAGE_BYTES
from retrograde.recording.bundle import Recording

Stack = tuple[int, int]
"""Number of the address space by first use (0: above the middle), and number of the page."""

ENTRY: Final = 256
"""Instructions from a delivery to the first call of its handler, at most."""

_SPACE: Final = "CASE WHEN sp >= (1::UBIGINT << 63) THEN 0 ELSE calls.space END"
# An empty stack that begins at the end of a page is of that page.
_PAGE: Final = f"(greatest(sp, 1) - 1) // {PAGE_BYTES}"


class CallStacks:
    """The calls of a recording that has the whole table. Close it after use."""

    def __init__(self, recording: Recording) -> None:
        store = IndexStore(recording)
        store.require_whole("calls")
        if not store.covers("calls", recording.end):
            raise UsageError(
                f"{recording.name} has no index of its calls.",
                f"Run: retrograde index {recording.path}",
            )
        build_log_tables(store, recording, ("interrupts", "exceptions"))
        self._connection = store.connect(("calls", "interrupts", "exceptions"))
        self._deliveries = [self._positions(name) for name in ("interrupts", "exceptions")]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def sizes(self) -> dict[Stack, int]:
        """Return how many calls were made on each stack."""
        rows = self._connection.execute(
            f"SELECT {_SPACE}, {_PAGE}, count(*), min(position) FROM calls GROUP BY ALL ORDER BY 4"
        ).fetchall()
        numbers = {0: 0}
        for space, *_ in rows:
            numbers.setdefault(space, len(numbers))
        self._spaces = {number: space for space, number in numbers.items()}
        return {(numbers[space], page): count for space, page, count, _ in rows}

    def read(self, stacks: Sequence[Stack]) -> Mapping[Stack, Calls]:
        """Return the calls made on each of `stacks`, which `sizes` told of."""
        wanted = {
            "number": np.arange(len(stacks)),
            "space": np.array([self._spaces[number] for number, _ in stacks], np.uint64),
            "page": np.array([page for _, page in stacks], np.uint64),
        }
        self._connection.register("wanted", wanted)
        columns = self._connection.execute(
            f"SELECT number, position, pc, target, sp, ifnull(return_position, 0) AS returned "
            f"FROM calls JOIN wanted ON wanted.page = {_PAGE} "
            f"AND wanted.space = {_SPACE} ORDER BY number, position"
        ).fetchnumpy()
        self._connection.unregister("wanted")
        bounds = np.searchsorted(columns["number"], np.arange(len(stacks) + 1))
        parts = zip(stacks, bounds, bounds[1:], strict=False)
        return {stack: self._calls(columns, slice(a, b)) for stack, a, b in parts}

    def _calls(self, columns: Mapping[str, NDArray[Any]], part: slice) -> Calls:
        position = columns["position"][part]
        interrupt, exception = (_latest(where, position) for where in self._deliveries)
        delivery = np.maximum(interrupt, exception)
        before = np.concatenate([np.array([-1], np.int64), position[:-1]])
        begins = (delivery > before) & (position - delivery <= ENTRY)
        return Calls(
            position,
            pc=columns["pc"][part],
            target=columns["target"][part],
            sp=columns["sp"][part],
            returned=columns["returned"][part],
            interrupted=begins & (interrupt > exception),
            delivered=begins,
        )

    def _positions(self, table: str) -> NDArray[np.int64]:
        query = f"SELECT position FROM {table} ORDER BY position"
        return np.asarray(self._connection.execute(query).fetchnumpy()["position"])


def _latest(deliveries: NDArray[np.int64], position: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each position that of the latest delivery up to it; before all: -ENTRY - 1."""
    known = np.concatenate([np.array([-ENTRY - 1], np.int64), deliveries])
    return known[np.searchsorted(deliveries, position, side="right")]
