"""Real lldb on our server. It goes back from 21 on; an older one has the packets sent by hand."""

from __future__ import annotations

import asyncio
import random
import shutil
from dataclasses import dataclass

import pytest

from tests.conftest import qemu_that_replays
from tests.system.gdbs import serving
from tests.system.lldbs import BY_HAND, lldb
from tests.system.walk import walked

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(shutil.which("lldb") is None, reason="lldb is not installed"),
]

TARGETS = ("x86_64", "aarch64", "riscv64", "ppc64")

PATCH = 150
"""Positions of a random script: what the oracle walks through."""


@pytest.fixture(scope="module")
def goes_back():
    """Whether this lldb has commands of its own to go back."""
    return "--reverse" in lldb("help process continue")[0]


@pytest.mark.usefixtures("probe")
def test_lldb_attaches_steps_breaks_and_watches(recorded, tmp_path, goes_back):
    recording = recorded()
    symbols = next(recording.path.glob("inputs/*.elf"))
    with serving(recording, tmp_path / "gdb"):
        said = lldb(
            f"target create {symbols}",
            f"process connect unix-connect://{tmp_path}/gdb",
            f"{BY_HAND} monitor seek 6_000_000",
            "stepi",
            "watchpoint set expression -s 8 -w write -- 0x200100",
            "process continue",
            "process continue --reverse" if goes_back else f"{BY_HAND} send bc",
            "watchpoint delete -f",
            "breakpoint set -n putc",
            f"process continue{' --forward' if goes_back else ''}",
            "register read rip",
            "memory read 0x200100 0x200110",
            "register write rax 5",
        )
    assert "stop reason = at 0" in said[1]
    assert "stop reason = instruction step into" in said[3]
    assert "stop reason = watchpoint 1" in said[5]
    assert "watchpoint 1" in said[6] if goes_back else "response: T05watch:200100;" in said[6]
    assert "stop reason = breakpoint 1.1" in said[9]
    assert "rip = 0x00000000001001e6" in said[10]
    assert "0x00200100: " in said[11]
    assert "Failed to write register" in said[12]


@pytest.mark.usefixtures("probe")
@pytest.mark.parametrize("target", TARGETS)
def test_random_commands_equal_single_steps(recorded, tmp_path, goes_back, target):
    if target == "riscv64" and not goes_back:
        pytest.skip("this lldb is too old for RISC-V")
    qemu, recording = qemu_that_replays(target), recorded("tiny", target)
    dice = random.Random(f"lldb {target}")
    middle = dice.randrange(recording.end // 2, recording.end - PATCH)
    walk = asyncio.run(walked(recording, qemu, middle - PATCH, middle + PATCH))
    with serving(recording, tmp_path / "gdb"):
        connect = f"process connect unix-connect://{tmp_path}/gdb"
        script = [step for _ in range(25) for step in moves(dice, walk, connect, goes_back)]
        said = lldb(connect, *(line for step in script for line in step.commands))[1:]
    for step in script:
        answers = [said.pop(0) for _ in step.commands]
        assert f"at {step.position:_} of" in answers[-2], (step, answers)
        assert int(answers[-1].split("=")[1].split()[0], 16) == walk[step.position], (step, answers)


@dataclass(frozen=True)
class Step:
    """Commands to lldb, the last two of which ask where it is, and where that must be."""

    position: int
    commands: tuple[str, ...]

    @classmethod
    def to(cls, position, *commands):
        return cls(position, (*commands, f"{BY_HAND} monitor when", "register read pc"))


def moves(dice, walk, connect, goes_back):
    """Yield a seek into `walk` and some steps and runs from there that stay in it."""
    # lldb does not know when it was moved by hand, unless it comes anew.
    look = ("process detach", connect)
    here = dice.choice(sorted(walk)[50:-50])
    yield Step.to(here, f"{BY_HAND} monitor seek {here}", *look)
    for _ in range(dice.randrange(4)):
        what = dice.choice(["stepi", "bs", "continue", "reverse"])
        if what == "stepi":
            yield Step.to(here := here + 1, "stepi")
        elif what == "bs":
            yield Step.to(here := here - 1, f"{BY_HAND} send bs", *look)
        elif what == "continue":
            here, address = nearest(dice, walk, range(here + 1, here + 15))
            forward = f"process continue{' --forward' if goes_back else ''}"
            yield Step.to(here, f"breakpoint set -a {address:#x}", forward, "breakpoint delete -f")
        else:
            here, address = nearest(dice, walk, range(here - 1, here - 15, -1))
            yield Step.to(
                here,
                f"breakpoint set -a {address:#x}",
                *(["process continue --reverse"] if goes_back else [f"{BY_HAND} send bc", *look]),
                "breakpoint delete -f",
            )


def nearest(dice, walk, positions):
    """Return the first of `positions` where some instruction is reached, and its address."""
    address = walk[dice.choice([one for one in positions if one in walk])]
    return next((one, address) for one in positions if walk.get(one) == address)
