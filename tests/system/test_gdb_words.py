"""What people say to gdb: done, or one sentence that names the way here; with real gdb."""

from __future__ import annotations

import re
import shutil

import pytest

from tests.command import retrograde
from tests.conftest import Record

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.gdb,
    pytest.mark.usefixtures("probe"),
    pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed"),
]

READ_ONLY = {
    "set var *(int*)0x200000 = 5": "Writing to memory is not allowed",
    "set $rax = 4": "Writing to registers is not allowed",
    "call (int)main()": "Cannot call functions in the program",
    "print (int)main()": "Cannot call functions in the program",
    "jump *main": "`retro seek` goes elsewhere",
    "return": "`retro finish-back` leave a function",
    "signal SIGINT": "no signal can be given",
    "kill": "`retro start` goes to its start",
    "record": "All of it is recorded already",
    "record stop": "All of it is recorded already",
    "generate-core-file": "`retrograde pack` makes one file of it",
    "monitor info block": "There is no `info block` here",
    "monitor info registers; quit": "There is no `info registers; quit` here",
    "monitor hits nowhere": "'nowhere' is not a number",
    "monitor disassemble 0 0": "are not an address and a number",
    "retro hits nowhere": 'Function "nowhere" not defined',
    "restart x": "Say `restart NUMBER`",
}


def gdb(recorded: Record, *lines: str, name: str = "tiny", at: str = "start") -> dict[str, str]:
    """Return what gdb says to each of `lines`."""
    words = [word for line in lines for word in ("-ex", f"echo >>>{line}\\n", "-ex", line)]
    done = retrograde("debug", recorded(name).path, "--at", at, "--", "-nx", "-batch", *words)
    said = (done.stdout + done.stderr.encode()).decode().split(">>>")[1:]
    # What gdb finds wrong is on its stderr, in no place: it is told with every line.
    return {part.partition("\n")[0]: part.partition("\n")[2] + done.stderr for part in said}


def test_what_cannot_be_done_names_what_can(recorded: Record) -> None:
    said = gdb(recorded, *READ_ONLY, "retro when", at="50%")
    for line, text in READ_ONLY.items():
        assert text in said[line], line
    middle, end = recorded().end // 2, recorded().end
    assert said["retro when"].startswith(f"at {middle:_} of {end:_}")


def test_words_for_running_go_through_the_recording(recorded: Record) -> None:
    end = recorded().end
    lines = ("start", "info symbol $pc", "checkpoint", "info checkpoints", "run", "restart 1")
    said = gdb(recorded, *lines, "info symbol $pc ", "starti", "retro when", "reverse-continue")
    assert "Temporary breakpoint 1, " in said["start"]
    assert said["info symbol $pc"].startswith("main in section .text")
    assert re.search(r"^checkpoint-1 is [\d_]+$", said["checkpoint"], re.M)
    assert "checkpoint-1" in said["info checkpoints"]
    assert "The recording ends here (guest-shutdown)." in said["run"]
    assert said["info symbol $pc "].startswith("main in section .text")
    assert said["retro when"].startswith(f"at 0 of {end:_}")
    assert "The recording starts here." in said["reverse-continue"]


def test_a_gdb_that_left_comes_back(recorded: Record) -> None:
    said = gdb(recorded, "detach", "retro when", "retro attach", "stepi", "retro when ", at="50%")
    assert "say `retro attach`" in said["retro when"]
    assert f"at {recorded().end // 2 + 1:_} of" in said["retro when "]


def test_out_of_a_function_and_to_its_call(recorded: Record) -> None:
    inside = "console:-DONE"  # in putc, which puts called; finish leaves for puts
    said = gdb(recorded, "retro finish", "retro finish-back", "info symbol $pc", at=inside)
    assert "#0  0x" in said["retro finish"]
    assert said["info symbol $pc"].startswith("start64 + ")


def test_hits_are_counted_and_placed(recorded: Record) -> None:
    said = gdb(recorded, "retro hits main", "retro hits alone", "retro hits *0x10", name="hot")
    entered = re.search(
        r"reached 0 times before .* and 1 times from here on.\n +([\d_]+)\n",
        said["retro hits main"],
    )
    assert entered
    assert re.search(r"reached 0 times before .* at least 1_000 times", said["retro hits alone"])
    shown = [int(one) for one in re.findall(r"^ +([\d_]+)$", said["retro hits alone"], re.M)]
    assert len(shown) == 10
    assert shown == list(range(shown[0], shown[0] + 10))  # it loops to itself
    assert "reached 0 times before this position and 0 times" in said["retro hits *0x10"]
    at = shown[4]
    nearest = gdb(recorded, "retro hits alone", name="hot", at=str(at))["retro hits alone"]
    assert f"reached {4} times before" in nearest
    assert [int(one) for one in re.findall(r"^ +([\d_]+)$", nearest, re.M)][:5] == shown[:5]


def test_instructions_are_shown_as_the_cpu_reads_them(recorded: Record) -> None:
    """gdb takes all for 64-bit code; the CPU is reset in 16-bit mode."""
    said = gdb(recorded, "retro disassemble", "retro seek 50%", "retro disassemble $pc 2")
    assert re.match(
        r"0xfffffff0: +ea 5b e0 00 f0 +ljmpw +\$0xf000:\$0xe05b", said["retro disassemble"]
    )
    assert len(re.findall(r"^0x", said["retro disassemble $pc 2"], re.M)) == 2
    assert "%r" in said["retro disassemble $pc 2"]


def test_what_gdbs_helpers_ask_is_answered(recorded: Record) -> None:
    """By the first GEF and pwndbg know a QEMU; with the others they draw their maps."""
    lines = ("maintenance packet qqemu.sstepbits", "monitor info registers", "monitor info mem")
    said = gdb(recorded, *lines, "monitor info mtree -f", at="50%")
    assert 'received: "ENABLE=1,' in said[lines[0]]
    assert "CR3=" in said["monitor info registers"]
    assert re.search(r"^[0-9a-f]{16}-[0-9a-f]{16} [0-9a-f]{16} .rw", said["monitor info mem"], re.M)
    assert "FlatView #0" in said["monitor info mtree -f"]


def test_what_was_taken_where_gdb_stands_is_said(recorded: Record) -> None:
    """A page fault's handler is entered, by a breakpoint and by a step."""
    said = gdb(
        recorded,
        *("break page_fault", "continue", "retro when", "reverse-stepi", "retro  when"),
        *("stepi", "retro   when", "print/x $cr2", "output/x *(long *)$rsp"),
        "output/x *(long *)($rsp + 8)",
        name="pagefault",
        at="console:START",
    )
    address = said["print/x $cr2"].splitlines()[0].split(" = ")[1]
    code, pc = (re.match("0x[0-9a-f]+", said[f"output/x *(long *){at}"]) for at in WORDS)
    assert code
    assert pc
    words = f"taken here: #PF, code {code[0]}, address {address}, from {pc[0]} at level 0\n"
    for line in ("retro when", "retro   when"):
        assert said[line].partition("\n")[2].startswith(words), line
    assert "taken" not in said["retro  when"]


WORDS = ("$rsp", "($rsp + 8)")
"""Where the processor pushed the error code and the pc."""
