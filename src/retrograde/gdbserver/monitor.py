"""The `monitor` commands: what gdb's own commands have no words for."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice

from retrograde.errors import UsageError
from retrograde.gdbserver.face import WIDEST, mode_of, modes_of
from retrograde.gdbserver.mode import MODES, ModeChoice
from retrograde.index.symbols.entrypoints import handlers
from retrograde.index.symbols.kernelplace import Kernels, was_in_memory
from retrograde.index.symbols.programplace import Piece
from retrograde.index.symbols.programsearch import (
    Wanted,
    can_search,
    places_here,
    stays_at_checkpoints,
)
from retrograde.investigation.bookmarks import Bookmarks
from retrograde.machine.probe.request import Breakpoint
from retrograde.position import format_position
from retrograde.timeline.frames import FARTHEST
from retrograde.timeline.search import Hit, Stops
from retrograde.timeline.timeline import Timeline

_HELP = """\
when                  the position, the recording's last one, and which interrupt or
                      exception was taken here, if one was
seek POSITION         go to 1_234_567, 1.2G, 50%, end-1000, console:TEXT or a bookmark
start, end            go to either end of the recording
finish                go forward out of the current function or handler
finish-back           go back to where it was called, or interrupted what ran
hits ADDR             where the instruction at ADDR is reached: how often, and positions
disassemble [ADDR] [N] N instructions (8), as the CPU's mode is here, from the pc on
mode [16|32|64]       which code the CPU runs here; have it shown so once attached anew
checkpoint            keep this position as the next numbered bookmark
bookmark NAME         keep this position under a name
bookmarks             list what was kept
last-write ADDR [LEN] who wrote LEN bytes (1) at ADDR last, before this position
kernel                where the guest's Linux kernel is, for `retro symbols`
program movable|fixed ENTRY ADDR:HEX...
                      where a program with these pieces is mapped, for `retro symbols`
memory-has HEX        whether these bytes were in the guest's memory, for `retro symbols`
info TOPIC            QEMU's own `info`: registers, mem, tlb, mtree, pic, qtree and more
screen                the guest's screen, a PNG picture in base64, for `retro screen`
console [TEXT]        the console up to here; or where TEXT appears on it
help                  this list
After a seek gdb shows the new place when told `maintenance flush register-cache`.
"""

INFOS = (
    *("cpus", "irq", "lapic", "mem", "memory_size_summary", "mtree", "pci", "pic"),
    *("qom-tree", "qtree", "ramblock", "registers", "roms", "status", "tlb", "usb", "version"),
)
"""What of QEMU's `info` only looks, and at this machine."""

_CONSOLE_BYTES = 2000
_HITS_SHOWN = 10
_INSTRUCTIONS = 8
_INSTRUCTIONS_AT_MOST = 1000
_FOUND_AT_MOST = 50
_BYTES_SHOWN = 32


class MonitorCommands:
    """Runs one line at a time and returns what to print."""

    def __init__(self, timeline: Timeline, mode: ModeChoice) -> None:
        self._timeline = timeline
        self._chosen_mode = mode
        self._bookmarks = Bookmarks(timeline.recording)
        self._kernels = Kernels(timeline)
        self._commands: dict[str, Callable[[str], Awaitable[str]]] = {
            "when": self._when,
            "seek": self._seek,
            "start": self._start,
            "end": self._end,
            "finish": self._finish,
            "finish-back": self._finish_back,
            "hits": self._hits,
            "disassemble": self._disassemble,
            "info": self._info,
            "mode": self._mode,
            "checkpoint": self._checkpoint,
            "bookmark": self._bookmark,
            "bookmarks": self._list,
            "last-write": self._last_write,
            "kernel": self._kernel,
            "program": self._program,
            "memory-has": self._memory_has,
            "screen": self._screen,
            "console": self._console,
            "help": self._help,
        }

    async def run(self, line: str) -> str:
        """Run a command; raises UsageError for one that is not known or understood."""
        word, _, rest = line.strip().partition(" ")
        command = self._commands.get(word or "help")
        if command is None:
            raise UsageError(
                f"{word[:80]!r} is not a monitor command.", "`monitor help` lists them."
            )
        return await command(rest.strip())

    async def _when(self, _rest: str) -> str:
        taken = await self._timeline.taken()
        reasons = "; then ".join(map(str, taken))
        return self._here() + (f"taken here: {reasons}\n" if taken else "")

    async def _seek(self, rest: str) -> str:
        if not rest:
            raise UsageError("There is no position to seek.", "Say `monitor seek POSITION`.")
        kept = self._bookmarks.resolve(rest)
        await self._timeline.seek(self._timeline.resolve(rest if kept is None else kept))
        return self._here()

    async def _start(self, _rest: str) -> str:
        return await self._seek("start")

    async def _end(self, _rest: str) -> str:
        return await self._seek("end")

    async def _finish(self, _rest: str) -> str:
        if await self._timeline.finish() is None:
            raise UsageError(f"No return from here was seen within {FARTHEST:_} instructions.")
        return self._here()

    async def _finish_back(self, _rest: str) -> str:
        if await self._timeline.finish_back() is None:
            raise UsageError(f"No call to here was seen within {FARTHEST:_} instructions.")
        return self._here()

    async def _hits(self, rest: str) -> str:
        address = _number(rest, "Say `monitor hits ADDRESS`.")
        timeline, stops = self._timeline, Stops(breakpoints=(Breakpoint(address),))
        here = timeline.position
        before, is_all_before = await timeline.newest_hits(stops, 0, here)
        after, is_all_after = await timeline.newest_hits(stops, here, timeline.end)
        said = (
            f"{address:#x} is reached {_count(before, is_all_before)} before this position and "
            f"{_count(after, is_all_after)} from here on.\n"
        )
        if not is_all_after:
            after = await self._oldest_hits(stops, here, after[0].position) or after
        near = (*before[-_HITS_SHOWN:], *after[:_HITS_SHOWN])
        return said + "".join(f"{format_position(hit.position):>15}\n" for hit in near)

    async def _oldest_hits(self, stops: Stops, start: int, stop: int) -> list[Hit]:
        """Return the first hits of so many that only the newest are told at once."""
        while stop - start > 1:
            middle = (start + stop) // 2
            earlier, is_all = await self._timeline.newest_hits(stops, start, middle)
            if earlier and is_all:
                return earlier
            start, stop = (start, earlier[0].position + 1) if earlier else (middle, stop)
        return (await self._timeline.newest_hits(stops, start, stop))[0]

    async def _disassemble(self, rest: str) -> str:
        usage = "Say `monitor disassemble [ADDRESS] [NUMBER]`."
        words = rest.split()
        address = _number(words[0], usage) if words else await self._timeline.pc()
        count = _number(words[1], usage) if words[1:] else _INSTRUCTIONS
        if words[2:] or not 0 < count <= _INSTRUCTIONS_AT_MOST or not 0 <= address < 1 << 64:
            raise UsageError(f"{rest[:80]!r} are not an address and a number.", usage)
        # QEMU's own disassembler knows the mode the CPU is in, which gdb does not.
        return _lines(await self._timeline.human(f"x /{count}i {address:#x}"))

    async def _info(self, rest: str) -> str:
        if rest.split(" ")[0] not in INFOS or not rest.replace("-", "").replace(" ", "").isalnum():
            raise UsageError(
                f"There is no `info {rest[:80]}` here.", f"Topics: {', '.join(INFOS)}."
            )
        return _lines(await self._timeline.human(f"info {rest}"))

    async def _mode(self, rest: str) -> str:
        isa = self._timeline.view.isa
        if not modes_of(isa):
            raise UsageError(f"A {isa.target} is shown in one mode only.", "PCs have several.")
        if rest:
            wanted = MODES.get(rest)
            if wanted not in modes_of(isa):
                known = ", ".join(map(str, modes_of(isa)))
                raise UsageError(f"{rest[:80]!r} is no mode of this machine.", f"Modes: {known}.")
            self._chosen_mode.now = wanted
        here = mode_of(await self._timeline.registers())
        shown = self._chosen_mode.now or WIDEST[isa.target]
        return f"The CPU runs {here}-bit code here, and is shown as one of {shown} bits.\n"

    async def _checkpoint(self, _rest: str) -> str:
        names = self._bookmarks.all()
        number = next(n for n in range(1, len(names) + 2) if f"checkpoint-{n}" not in names)
        return await self._bookmark(f"checkpoint-{number}")

    async def _bookmark(self, rest: str) -> str:
        position = self._timeline.position
        self._bookmarks.add(rest, position)
        return f"{rest} is {format_position(position)}\n"

    async def _list(self, _rest: str) -> str:
        kept = sorted(self._bookmarks.all().items(), key=lambda pair: pair[1])
        rows = [f"{format_position(position):>15}  {name}\n" for name, position in kept]
        return "".join(rows) or "There are no bookmarks.\n"

    async def _last_write(self, rest: str) -> str:
        words = rest.split()
        try:
            address, count = (int(word, 0) for word in (*words, "1")[:2])
        except ValueError:
            words = []
        if not 1 <= len(words) <= 2 or count < 1:
            raise UsageError(
                f"{rest[:80]!r} is not an address and a length.",
                "Say `monitor last-write 0x1234 8`.",
            )
        write = await self._timeline.last_write(address, count)
        if write is None:
            return f"Nothing has written {count} bytes at {address:#x} before this position.\n"
        who = "a device (DMA) or a page walk" if write.pc is None else f"pc {write.pc:#x}"
        change = f"{_digits(write.new)} at {address:#x}, over {_digits(write.old)}"
        return f"{format_position(write.position)}: {who} wrote {change}\n"

    async def _kernel(self, _rest: str) -> str:
        """List the kernel's anchors, its handlers, and places where code ran.

        gdb looks for the names there. The kernel is the one that is current at the cursor.
        """
        ran = await handlers(self._timeline)
        anchors = await self._kernels.anchors(ran)
        view = self._timeline.view
        met = {
            view.decode(checkpoint.registers.encode())[view.isa.pc]
            for checkpoint in self._timeline.store.checkpoints
        }
        rows = [f"{name} {address:#x}\n" for name, address in anchors.items()]
        rows += [f"handler {name} {address:#x}\n" for name, address in ran.items()]
        return "".join((*rows, *(f"pc {pc:#x}\n" for pc in sorted(met))))

    async def _program(self, rest: str) -> str:
        """List where a program is mapped: in this space, in others, and at checkpoints.

        By its base and its space's root, at checkpoints also by the positions around.
        """
        try:
            kind, entry, *pairs = rest.split()
            halves = [pair.partition(":") for pair in pairs]
            pieces = [Piece(int(at, 16), bytes.fromhex(content)) for at, _, content in halves]
            wanted = Wanted(int(entry, 16), pieces, kind == "movable")
        except ValueError:
            raise UsageError("These are not addresses and bytes in hexadecimal digits.") from None
        if not can_search(self._timeline):
            return "unknown\n"
        here = await places_here(self._timeline, pieces)
        (ever,) = await stays_at_checkpoints(self._timeline, [wanted])
        rows = [f"here {here.current.base:#x} {here.root:#x}\n"] if here.current else []
        rows += [f"place {base:#x} {root:#x}\n" for root, base in here.places if root != here.root]
        for (root, base), first, last in ever:
            rows.append(f"stay {base:#x} {root:#x} {first} {last}\n")
        return "".join(rows)

    async def _memory_has(self, rest: str) -> str:
        """Say whether the guest's memory ever had bytes, as far as the checkpoints know."""
        try:
            content = bytes.fromhex(rest)
        except ValueError:
            raise UsageError("These are not bytes in hexadecimal digits.") from None
        if not self._timeline.recording.manifest.ram.seen:
            return "unknown\n"
        store = self._timeline.store
        return "yes\n" if await asyncio.to_thread(was_in_memory, store, content) else "no\n"

    async def _screen(self, _rest: str) -> str:
        picture = await self._timeline.screen()
        return base64.b64encode(picture.png()).decode() + "\n"

    async def _console(self, rest: str) -> str:
        console = self._timeline.recording.console
        if not rest:
            until = console.bytes_until(self._timeline.position)
            shown = console.data[max(0, until - _CONSOLE_BYTES) : until]
            return _text(shown).rstrip("\n") + "\n"
        wanted = rest.encode()
        found = islice(console.find(wanted), _FOUND_AT_MOST)
        rows = []
        for index, _first in found:
            begin = console.data.rfind(b"\n", 0, index) + 1
            stop = console.data.find(b"\n", index)
            line = _text(console.data[begin : stop if stop >= 0 else None])
            position = console.position_of(index + len(wanted) - 1)
            rows.append(f"{format_position(position):>15}  {line.rstrip()}\n")
        return "".join(rows) or f"The console never shows {rest[:80]!r}.\n"

    async def _help(self, _rest: str) -> str:
        return _HELP

    def _here(self) -> str:
        position, end = self._timeline.position, self._timeline.end
        return f"at {format_position(position)} of {format_position(end)}\n"


def _count(hits: Sequence[Hit], is_all: bool) -> str:
    return f"{'' if is_all else 'at least '}{len(hits):_} times"


def _lines(text: str) -> str:
    """Return QEMU's answer as lines that end as ours do."""
    return text.replace("\r", "").rstrip("\n") + "\n"


def _number(text: str, usage: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise UsageError(f"{text[:80]!r} is not a number.", usage) from None


def _text(data: bytes) -> str:
    """Return guest output as lines."""
    return data.decode(errors="replace").replace("\r", "")


def _digits(data: bytes) -> str:
    return data[:_BYTES_SHOWN].hex(" ") + " ..." * (len(data) > _BYTES_SHOWN)
