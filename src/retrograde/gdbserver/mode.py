"""Which of a PC's modes clients are shown, and a word when that is not the CPU's."""

from __future__ import annotations

from typing import Final

from retrograde.gdbserver.face import WIDEST, Mode, mode_of
from retrograde.timeline.timeline import Timeline

MODES: Final[dict[str, Mode]] = {"16": 16, "32": 32, "64": 64}

AARCH32: Final = 1 << 4
"""Bit of the cpsr (nRW) that is set in AArch32."""

_AARCH32_DOUBT: Final = (
    "The CPU runs AArch32 code here, of which QEMU shows AArch64 registers: pc and others are not "
    "what the code sees. A guest that is 32-bit throughout can be recorded with --target arm.\n"
)


class ModeChoice:
    """What the next client to attach is shown, None for what QEMU describes; outlives clients.

    A debugger cannot be told of another machine while it is attached.
    """

    def __init__(self, now: Mode | None = None) -> None:
        self.now = now
        self._last: Mode | None = None

    async def doubt(self, timeline: Timeline, shown: Mode | None) -> str:
        """Return what to say of code that the client takes for other code, else nothing.

        It is said once, until the mode changes.
        """
        target = timeline.view.isa.target
        taken_for = shown or WIDEST.get(target, 64)
        try:
            here = await self._mode(timeline)
        except KeyError:
            return ""  # no machine is at hand to tell: one hit after the other is asked for
        before, self._last = self._last, here
        if here in (before, taken_for):
            return ""
        if target == "aarch64":
            return _AARCH32_DOUBT
        return (
            f"The CPU runs {here}-bit code here, and the debugger takes it for {taken_for}-bit "
            f"code: `retro mode {here}` has it shown right, as `monitor mode {here}` and attaching "
            "anew do.\n"
        )

    @staticmethod
    async def _mode(timeline: Timeline) -> Mode:
        """Return the mode at the cursor; raises KeyError where that is not known."""
        view = timeline.view
        registers = view.decode(await timeline.glimpse())
        if view.isa.target in WIDEST:
            return mode_of(registers)
        return 32 if view.isa.target == "aarch64" and registers["cpsr"] & AARCH32 else 64
