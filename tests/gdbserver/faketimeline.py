"""A timeline of a few thousand positions made of arithmetic, to serve without a QEMU.

The instruction at position p is at `pc(p)` and stores p at `stored(p)`; rax is 7 p.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from retrograde.errors import PositionError, QemuRefused
from retrograde.isa.isa import isa_for
from retrograde.machine.gdb.targetdesc import RegisterLayout
from retrograde.position import parse_position
from retrograde.recording.folder import Folder
from retrograde.timeline.machineview import MachineView
from retrograde.timeline.search import Hit

END = 5000
MAPPED = 0x20000
REGISTERS = (("rax", 64), ("rsp", 64), ("rip", 64), ("eflags", 32), ("cs", 32), ("cr0", 64))


def pc(position):
    return 0x1000 + position * position % 211


def stored(position):
    return 0x8000 + position % 64 * 8


class FakeRecording:
    def __init__(self, cache):
        self.cache = cache
        self.manifest = SimpleNamespace(ending="guest-shutdown")

    def open_cache(self, *, make=False):
        return Folder.at(self.cache.parent).folder(self.cache.name, make=make)

    def program(self):
        path = self.cache and self.cache / "program"
        return path if path and path.is_file() else None


class FakeTimeline:
    def __init__(self, cache=None, target="x86_64"):
        self.recording = FakeRecording(cache)
        layout = RegisterLayout.bare(REGISTERS)
        self.view = MachineView(isa_for(target), layout, layout, ())
        self.position = 0
        self.end = END
        self.can_search = True

    def resolve(self, expression):
        return parse_position(str(expression), self.end, lambda _text: None)

    async def seek(self, position):
        if not 0 <= position <= self.end:
            raise PositionError("outside")
        self.position = position

    async def step(self, count=1):
        await self.seek(self.position + count)

    async def step_back(self, count=1):
        await self.seek(self.position - count)

    async def packet(self):
        p = self.position
        values = {"rax": 7 * p, "rsp": 0x9000, "rip": pc(p), "eflags": 2, "cs": 8, "cr0": 1}
        digits = [values[n].to_bytes(bits // 8, "little").hex() for n, bits in REGISTERS]
        return "".join(digits).encode()

    async def glimpse(self):
        return await self.packet()

    def foresees(self, _stops, *, forward):
        return False

    async def registers(self):
        return self.view.decode(await self.packet())

    async def taken(self):
        return []

    async def pc(self):
        return pc(self.position)

    async def read(self, address, count, space="virtual"):
        if address + count > MAPPED:
            raise QemuRefused("not mapped")
        return bytes((address + i) & 0xFF for i in range(count))

    async def target_description(self):
        return {"target.xml": b"<target/>"}

    async def all_hits(self, stops, start, stop):
        return [hit for p in range(start, min(stop, END)) for hit in self._at(stops, p)]

    def _at(self, stops, p):
        registers = {"rax": 7 * p}
        for stop in stops.breakpoints:
            if stop.pc == pc(p) and _holds(stop, registers):
                yield Hit(p, pc(p))
        for stop in stops.watches:
            if stop.access != "r" and _touches(stop, stored(p)):
                yield Hit(p, pc(p), stored(p), stored(p), 8, p, True)

    async def run(self, stops, progress=None):
        for p in range(self.position, END):
            await self._breathe(p, progress)
            for hit in self._at(stops, p):
                if hit.is_access or p != self.position:
                    await self.seek(p + hit.is_access)
                    return hit
        await self.seek(END)
        return None

    async def run_back(self, stops, progress=None):
        for p in reversed(range(self.position)):
            await self._breathe(p, progress)
            if hits := list(self._at(stops, p)):
                await self.seek(p)
                return hits[-1]
        await self.seek(0)
        return None

    async def _breathe(self, p, progress):
        if p % 100 == 0:
            await asyncio.sleep(0)
            if progress:
                progress(p)


def _touches(watch, address):
    return address < watch.start + watch.length and watch.start < address + 8


def _holds(stop, registers):
    if not stop.checks:
        return True

    async def memory(address, size):
        return int.from_bytes(bytes((address + i) & 0xFF for i in range(size)), "little")

    for check in stop.checks:
        names = dict(check.names)
        try:
            check.expression.evaluate(lambda n, of=names: registers[of[n]], memory).send(None)
        except StopIteration as ended:
            if ended.value:
                return True
        except KeyError:
            return True
    return False
