"""The windows a timeline holds: which, how far the next one reaches, and filling ahead.

One replayer parks at positions; another fills windows, in the background. Where there is
only one, it does both.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from retrograde.timeline.filling import fill, follow
from retrograde.timeline.machineview import MachineView
from retrograde.timeline.pool import Pool
from retrograde.timeline.prefetch import Prefetch
from retrograde.timeline.seat import Seat
from retrograde.timeline.window import Window

FIRST_WINDOW = 1024
LARGEST_WINDOW = 16_384
"""Positions of the first window, and of the windows long walks grow to. Filling costs some
40 ms whatever the size and 4 ms a thousand positions; half of the first is behind one
`reverse-next` of a debugger before the next is filled beside it."""

WINDOWS_KEPT = 4

FOLLOWED = 32
"""Pages of virtual memory whose places new windows tell, where we do not know the paging: those
looked at last. At each instruction QEMU is asked for each."""


class Windows:
    """The windows around where a timeline's cursor has been, newest first."""

    def __init__(self, pool: Pool, view: MachineView, *, ahead: bool = True) -> None:
        """Fill windows `ahead`, where there is another replayer for that, or only when asked."""
        self._pool = pool
        self.parker, self._filler = pool.pair()
        self._may_prefetch = ahead and self._filler is not self.parker
        self._view = view
        self._kept: list[Window] = []
        self._span = FIRST_WINDOW
        self._has_stepped = True
        self._followed: dict[int, None] = {}
        self._prefetch = Prefetch(self._hold)

    @property
    def viewers(self) -> Sequence[Seat]:
        """The replayers to look at a position with: the parker, unless only others are idle."""
        return (self.parker, *self._pool.seats)

    def held(self, position: int) -> Window | None:
        """Return the window that holds `position`, if one does."""
        for window in self._kept:
            if position in window:
                return window
        return None

    async def packet(self, position: int) -> bytes:
        """Return the registers at `position` as QEMU's `g` packet, hex digits."""
        window = self.held(position)
        packet = window.packet(position) if window else None
        return packet or await self._look(position)

    async def jump(self, position: int) -> None:
        """Hold `position` for a cursor that comes from anywhere."""
        if self.held(position) is not None:
            return
        self._span = FIRST_WINDOW
        self._prefetch.forget()
        around = max(0, position - FIRST_WINDOW), position
        # Who stepped after the last seek will after this one: worth a replayer's time
        # beside the seek. Who did not may be a script that seeks on and on.
        if self._may_prefetch and self._has_stepped:
            self._prefetch.want(*around)
        await self._look(position)
        if self._may_prefetch and not self._has_stepped:
            self._prefetch.want_when_idle(*around)
        self._has_stepped = False

    def expect(self, position: int) -> None:
        """Have what is before `position` held when there is time: a cursor is there."""
        if self._may_prefetch and self.held(position) is None:
            self._prefetch.want_when_idle(max(0, position - FIRST_WINDOW), position)

    async def step_to(self, position: int, end: int) -> None:
        """Hold `position` for a cursor that steps forward, and what comes after it."""
        self._has_stepped = True
        if self.held(position) is None:
            await self._hold(position, min(end, position + self._grow()))

    async def step_back_to(self, position: int) -> None:
        """Hold `position` for a cursor that steps back, and what comes before it."""
        self._has_stepped = True
        if self.held(position) is None and self._prefetch.is_busy:
            await self._prefetch.settle()
        if self.held(position) is None:
            await self._hold(max(0, position - self._grow()), position)
        self._fill_before(position)

    async def follow(self, position: int, pages: Sequence[int]) -> Window | None:
        """Have the window that holds `position` tell where `pages` lie, and those to come.

        Returns that window.
        """
        for page in pages:
            self._followed.pop(page, None)
            self._followed[page] = None
        while len(self._followed) > FOLLOWED:
            self._followed.pop(next(iter(self._followed)))
        held, view, places = self.held(position), self._view, tuple(self._followed)
        if held is None:
            return None
        self._keep(await self._filled(lambda seat: follow(seat, view, held, places)))
        return self.held(position)

    def forget(self) -> None:
        """Leave the replayers to a search: what is not begun to be filled is dropped."""
        self._prefetch.forget()

    async def settle(self) -> None:
        """Wait until nothing is being filled; what is not begun is dropped."""
        await self._prefetch.settle()

    async def stop(self) -> None:
        """End the filling at once, leaving its replayer in the middle."""
        await self._prefetch.stop()

    def _keep(self, window: Window) -> None:
        others = [one for one in self._kept if one.start not in window or one.end not in window]
        self._kept = [window, *others[: WINDOWS_KEPT - 1]]

    def _grow(self) -> int:
        """Return how far the next window reaches; each is larger than the last."""
        span, self._span = self._span, min(LARGEST_WINDOW, self._span * 4)
        return span

    async def _look(self, position: int) -> bytes:
        """Park at `position`, return the registers there and hold them."""

        async def look(seat: Seat) -> bytes:
            await seat.go(position)
            return await (await seat.gdb()).read_registers()

        packet = await self._pool.work(look, self.viewers)
        self._keep(Window(position, [packet], None))
        return packet

    async def _hold(self, start: int, end: int) -> None:
        view, places = self._view, tuple(self._followed)
        self._keep(await self._filled(lambda seat: fill(seat, view, start, end, places)))

    async def _filled(self, filling: Callable[[Seat], Awaitable[Window]]) -> Window:
        return await self._pool.work(filling, (self._filler,))

    def _fill_before(self, position: int) -> None:
        """Have the window before this one filled as its edge comes near."""
        window = self.held(position)
        if window is None or window.start == 0 or self._prefetch.is_busy:
            return
        if position - window.start > (window.end - window.start) // 2:
            return
        if self.held(window.start - 1) is None:
            self._prefetch.want(max(0, window.start - self._grow()), window.start - 1)
