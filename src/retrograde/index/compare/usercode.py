"""The instructions of a process on x86_64, decoded as they are asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrograde.errors import QemuRefused
from retrograde.index.compare.codepages import Addresses
from retrograde.index.compare.lane import Positions
from retrograde.index.questions.stretch import LONGEST_CODE, dataflow_for
from retrograde.timeline.pages import PAGE
from retrograde.timeline.timeline import Timeline


class UserCode:
    """Code of one process; a page is read where code in it is met first. The cursor moves."""

    def __init__(self, timeline: Timeline) -> None:
        self.dataflow = dataflow_for("x86_64")
        import capstone  # type: ignore[import-untyped]

        self._timeline = timeline
        self._decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        self._decoder.detail = True
        self._pages: dict[int, bytes] = {}
        self._decoded: dict[int, Any] = {}

    async def instruction(self, address: int, position: int) -> Any:
        """Return what runs at `position` (`capstone.CsInsn`); None where it is no instruction."""
        if address not in self._decoded:
            page, at = address & -PAGE, address % PAGE
            code = (await self._page(page, position))[at : at + LONGEST_CODE]
            if len(code) < LONGEST_CODE:
                following = await self._page(page + PAGE, position)
                code += following[: LONGEST_CODE - len(code)]
            self._decoded[address] = next(self._decoder.disasm(code, address, 1), None)
        return self._decoded[address]

    async def levels(self, addresses: Addresses, positions: Positions) -> NDArray[np.int64]:
        """Return how deep in calls each instruction is, the first at 0."""
        import capstone

        pcs, first, which = np.unique(addresses, return_index=True, return_inverse=True)
        change = np.zeros(len(pcs), np.int64)
        for number in np.argsort(first):
            insn = await self.instruction(int(pcs[number]), int(positions[first[number]]))
            if insn and insn.group(capstone.CS_GRP_CALL):
                change[number] = 1
            elif insn and insn.group(capstone.CS_GRP_RET):
                change[number] = -1
        return np.cumsum(change[which]) - change[which]

    async def _page(self, page: int, position: int) -> bytes:
        """Return a page; empty where it is not mapped at `position`."""
        if page not in self._pages:
            # Where the cursor stands it is mapped more often than not.
            await self._read(page)
        if page not in self._pages:
            await self._timeline.seek(position)
            await self._read(page)
        return self._pages.get(page, b"")

    async def _read(self, page: int) -> None:
        try:
            self._pages[page] = await self._timeline.read(page, PAGE)
        except QemuRefused:
            return
