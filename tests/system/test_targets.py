"""The timeline and stock gdb on every target that works, against single steps."""

from __future__ import annotations

import asyncio
import random
import shutil
from dataclasses import dataclass

import pytest

from retrograde.isa.isa import isa_for
from retrograde.verify.gdbmi import GdbMi
from retrograde.verify.randomly import compare_randomly
from tests.conftest import qemu_that_replays
from tests.system.gdbs import go, seek, serving, where
from tests.system.walk import walked

pytestmark = pytest.mark.qemu

TARGETS = ("x86_64", "aarch64", "ppc64", "riscv64", "s390x")

ALSO_EXACT = ("i386", "arm", "riscv32", "mips", "mipsel", "mips64", "mips64el", "m68k")
"""Further targets with a tiny guest, which gdb is not tried on."""

WITHOUT_GDB = ("s390x",)
"""Where stock gdb 13 fails by itself: to this guest, which has no stack, it says "PC not
saved" instead of reporting a stop."""

PATCH = 150
"""Positions around the middle of each script: what the oracle walks through."""


@pytest.mark.parametrize("target", TARGETS[1:] + ALSO_EXACT)
async def test_random_operations_equal_a_fresh_replay(recorded, target):
    qemu = qemu_that_replays(target)
    result = await compare_randomly(recorded("tiny", target), qemu, count=20, seed=2, report=print)
    assert result.operations == 20


@pytest.mark.gdb
@pytest.mark.parametrize("target", [one for one in TARGETS if one not in WITHOUT_GDB])
def test_random_gdb_commands_equal_single_steps(recorded, tmp_path, target):
    program = "gdb-multiarch"
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    qemu, recording = qemu_that_replays(target), recorded("tiny", target)
    dice = random.Random(target)
    isa = isa_for(target)
    middle = dice.randrange(recording.end // 2, recording.end - PATCH)
    with serving(recording, tmp_path / "gdb"), GdbMi(program) as gdb:
        gdb.command(f"set architecture {isa.gdb_architecture}")
        gdb.command(f"set endian {isa.byte_order}")
        gdb.connect(tmp_path / "gdb")
        seen = list(script(gdb, dice, middle))
    walk = asyncio.run(walked(recording, qemu, middle - PATCH, middle + PATCH))
    assert len(walk.keys() & {one.position for one in seen}) > 10
    for one in seen:
        assert one.pc == walk.get(one.position, one.pc), one
        # A breakpoint stopped at the nearest execution of its instruction.
        between = [at for at in one.passed if walk.get(at) == one.pc]
        assert not between, one


@dataclass(frozen=True)
class Seen:
    """Where gdb was after a command; a run to a breakpoint went past the positions `passed`."""

    position: int
    pc: int
    passed: range = range(0)


def script(gdb, dice, middle):
    """Move about at random; yield what is seen after each command."""
    seek(gdb, middle)
    for _ in range(25):
        line = dice.choice(["stepi", "reverse-stepi", "break", "seek"])
        if line == "seek":
            seek(gdb, dice.randrange(middle - PATCH // 2, middle + PATCH // 2))
        elif line == "break":
            yield run_to_break(gdb, dice.random() < 0.5)
        else:
            for _ in range(dice.choice([1, 1, 2, 7])):
                go(gdb, line)
        yield Seen(where(gdb), gdb.register("pc"))
        if abs(where(gdb) - middle) > PATCH:
            seek(gdb, middle)


def run_to_break(gdb, back):
    """Go to the last or the next time the instruction at the pc is reached."""
    go(gdb, "stepi")  # after a seek gdb would stop at a breakpoint here at once
    here, address = where(gdb), gdb.register("pc")
    gdb.command(f"break *{address:#x}")
    text = go(gdb, "reverse-continue" if back else "continue")
    gdb.command("delete")
    if "No more reverse-execution history" in text:
        return Seen(where(gdb), gdb.register("pc"))
    there = where(gdb)
    assert gdb.register("pc") == address
    assert there < here if back else there > here
    return Seen(there, address, range(min(here, there) + 1, max(here, there)))
