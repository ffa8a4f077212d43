"""A stretch of execution whose instructions are decoded as they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from retrograde.errors import EnvironmentLacks, QemuRefused
from retrograde.index.questions.dataflow import Dataflow, Slice
from retrograde.isa.isa import X86
from retrograde.machine.probe.page import PAGE_BYTES
from retrograde.timeline.timeline import Timeline
from retrograde.timeline.trace import Trace

LONGEST_CODE: Final = 15
"""Bytes of an instruction, at most."""

AT_ONCE: Final = 2048
"""Positions looked through at a time: few have more than some hundred addresses."""

LONG_MODE: Final = 1 << 10


class Stretch:
    """A trace of a recording, and what its instructions are. Made by `ending_at`.

    Code is read where the stretch ends, in the address space there; where it is not mapped
    there, at the instruction.
    """

    def __init__(self, timeline: Timeline, dataflow: Dataflow, trace: Trace, decoder: Any) -> None:
        self.trace = trace
        self._timeline = timeline
        self._dataflow = dataflow
        self._decoder = decoder
        self._pages: dict[int, bytes] = {}
        self._decoded: dict[int, Any] = {}

    @classmethod
    async def ending_at(
        cls, timeline: Timeline, dataflow: Dataflow, stop: int, span: int
    ) -> Stretch:
        """Trace the `span` positions before `stop`; the cursor moves there."""
        trace = await timeline.trace(max(0, stop - span), stop)
        await timeline.seek(stop)
        target = timeline.recording.manifest.machine.target
        decoder = _decoder_for(target, await timeline.registers())
        return cls(timeline, dataflow, trace, decoder)

    def __contains__(self, before: int) -> bool:
        """Whether what happened just before the position `before` is in it."""
        return self.trace.start < before <= self.trace.stop

    async def instruction(self, position: int, pc: int | None = None) -> Any:
        """Return what ran at `position` (`capstone.CsInsn`); None where it is no instruction."""
        pc = self.trace.pc(position) if pc is None else pc
        if pc not in self._decoded:
            code = await self._code(pc, position)
            self._decoded[pc] = next(self._decoder.disasm(code, pc, 1), None)
        return self._decoded[pc]

    async def last_writer(self, part: Slice, before: int) -> tuple[int, Slice] | None:
        """Return where an instruction wrote a register last before `before`, and what of it."""
        start, high = self.trace.start, before
        while high > start:
            low = max(start, high - AT_ONCE)
            pcs, first, which = np.unique(
                self.trace.pcs[low - start : high - start], return_index=True, return_inverse=True
            )
            written = [
                await self._written(int(pc), low + int(at), part)
                for pc, at in zip(pcs, first, strict=True)
            ]
            hits = np.flatnonzero(np.array([one is not None for one in written])[which])
            if len(hits) and (last := written[int(which[hits[-1]])]):
                return low + int(hits[-1]), last
            high = low
        return None

    async def _written(self, pc: int, position: int, part: Slice) -> Slice | None:
        insn = await self.instruction(position, pc)
        slices = self._dataflow.written(insn) if insn else []
        return next((one for one in slices if one.overlaps(part)), None)

    async def _code(self, pc: int, position: int) -> bytes:
        page, at = pc & -PAGE_BYTES, pc % PAGE_BYTES
        code = (await self._page(page, position))[at : at + LONGEST_CODE]
        if len(code) < LONGEST_CODE:
            code += (await self._page(page + PAGE_BYTES, position))[: LONGEST_CODE - len(code)]
        return code

    async def _page(self, page: int, position: int) -> bytes:
        if page not in self._pages:
            self._pages[page] = await self._read(page) or await self._read(page, position)
        return self._pages[page]

    async def _read(self, page: int, position: int | None = None) -> bytes:
        """Return a page of virtual memory at the cursor or elsewhere; empty if not mapped."""
        here = self._timeline.position
        try:
            if position is not None:
                await self._timeline.seek(position)
            return await self._timeline.read(page, PAGE_BYTES)
        except QemuRefused:
            return b""
        finally:
            if position is not None:
                await self._timeline.seek(here)


def dataflow_for(target: str) -> Dataflow:
    """Return what is known of a target's instructions; raises EnvironmentLacks."""
    try:
        from retrograde.index.questions import dataflow_arm64, dataflow_riscv, dataflow_x86
    except ModuleNotFoundError as error:
        raise EnvironmentLacks(
            "Following values needs the Python package capstone.",
            "Run: pip install 'retrograde[index]'",
        ) from error
    if target in X86:
        return dataflow_x86.X86()
    if target == "aarch64":
        return dataflow_arm64.Arm64()
    if target == "riscv64":
        return dataflow_riscv.Riscv()
    raise EnvironmentLacks(
        f"What the instructions of {target} do with values is not known.",
        "Values can be followed on x86_64, i386, aarch64 and riscv64; last-write works on all.",
    )


def _decoder_for(target: str, registers: Mapping[str, int]) -> Any:
    """Return Capstone for the mode the machine is in."""
    import capstone  # type: ignore[import-untyped]

    if target == "riscv64":
        mode = capstone.CS_MODE_RISCV64 | capstone.CS_MODE_RISCVC
        decoder = capstone.Cs(capstone.CS_ARCH_RISCV, mode)
    elif target not in X86:
        decoder = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)
    elif registers.get("efer", 0) & LONG_MODE:
        decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    else:
        mode = capstone.CS_MODE_32 if registers["cr0"] & 1 else capstone.CS_MODE_16
        decoder = capstone.Cs(capstone.CS_ARCH_X86, mode)
    decoder.detail = True
    return decoder
