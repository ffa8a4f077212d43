"""Real runs whose interrupts came at other positions, and some whose work differs at one call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import msgspec
import pytest

from retrograde.errors import UsageError
from retrograde.guests.builtin import builtin_guest
from retrograde.index.compare.aligneddiff import Call, compare_calls
from retrograde.index.tables.store import IndexStore
from retrograde.recording.bundle import Recording
from tests.command import assert_error, retrograde
from tests.conftest import find_qemu
from tests.index.compare.test_diff import write_calls
from tests.recording.handmade import make_recording, replaced

Make = Callable[..., Recording]

RECURSE_20 = bytes.fromhex("ba14000000")  # mov $20,%edx in guests/x86_64/stacks.S
RECURSE_19 = bytes.fromhex("ba13000000")
PUTS_PHASE = bytes.fromhex("e780e00d")  # jalr of "call puts" in guests/riscv64/tiny.inc.S
NOTHING = bytes.fromhex("13000000")


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """`indexed(name, target, shift, old, new)`: a recording with its index; do not change it.

    Of a built-in guest, whose image has `new` in place of `old`.
    """

    @cache
    def make(
        name: str, target: str = "x86_64", shift: int = 7, old: bytes = b"", new: bytes = b""
    ) -> Recording:
        find_qemu(target)
        folder = tmp_path_factory.mktemp("aligned")
        arguments = list(builtin_guest(name, target).qemu_args)
        image = next(Path(word) for word in arguments if Path(word).is_file())
        data = image.read_bytes()
        if old:
            assert data.count(old) == 1
            data = data.replace(old, new)
        (folder / image.name).write_bytes(data)
        arguments[arguments.index(str(image))] = str(folder / image.name)
        output = folder / f"{name}-{shift}.retro"
        options = ("--target", target, "--shift", str(shift), "--", *arguments)
        for done in (retrograde("record", "-o", output, *options), retrograde("index", output)):
            assert done.status == 0, done.stderr
        return Recording.open(output)

    return make


pytestmark = [pytest.mark.qemu, pytest.mark.usefixtures("probe")]


@pytest.mark.parametrize(
    ("name", "target"),
    [("stacks", "x86_64"), ("tiny", "aarch64"), ("tiny", "ppc64")],
)
def test_all_calls_align(indexed: Make, name: str, target: str) -> None:
    """Handlers of these guests call nothing; threads of the first are preempted by them."""
    found = compare_calls(indexed(name, target, 7), indexed(name, target, 6))
    assert found.common == found.calls[0] == found.calls[1] > 0
    assert (found.partings, found.skipped, found.left) == ([], (0, 0), (0, 0))


def test_calls_of_handlers_are_left_out(indexed: Make) -> None:
    """A tick handler that calls, twice as often in one run; all else is one long function."""
    slow, fast = indexed("tiny", "riscv64", 6), indexed("tiny", "riscv64", 7)
    ticks = [
        retrograde("query", recording.path, "FROM interrupts", "--format", "csv").stdout.count(
            b"\n"
        )
        - 1
        for recording in (slow, fast)
    ]
    found = compare_calls(slow, fast)
    assert (found.partings, found.left, found.alone) == ([], (0, 0), (0, 0))
    assert found.calls[1] - found.calls[0] == ticks[1] - ticks[0] > 100
    assert found.skipped[1] - found.skipped[0] == ticks[1] - ticks[0]


def test_the_call_that_differs_between_preempted_threads(indexed: Make) -> None:
    """One recursion of 20 calls, one of 19: the 20th is where they part, on each stack."""
    first = indexed("stacks", "x86_64", 7)
    found = compare_calls(first, indexed("stacks", "x86_64", 6, RECURSE_20, RECURSE_19))
    assert len(found.partings) == 3
    parting = found.partings[0]
    assert parting.before is not None
    inner, outer = parting.calls
    assert inner.target == outer.target
    assert [call.pc for call in parting.before] == [inner.pc, inner.pc]
    (begin,) = answer(first, f"SELECT min(position) FROM calls WHERE pc = {outer.pc}")
    until = f"position BETWEEN {begin} AND {parting.before[0].position}"
    (calls,) = answer(first, f"SELECT count(*) FROM calls WHERE {until}")
    assert calls == 19
    (following,) = answer(
        first, f"SELECT min(position) FROM calls WHERE position > {parting.before[0].position}"
    )
    assert inner.position == following


def test_the_call_that_differs_behind_handlers(indexed: Make) -> None:
    """One run has nothing in the place of a call, of which ticks that call lie before."""
    first = indexed("tiny", "riscv64", 7)
    found = compare_calls(first, indexed("tiny", "riscv64", 6, PUTS_PHASE, NOTHING))
    (parting,) = found.partings
    with IndexStore(first).connect() as connection:
        query = "SELECT position, pc, target FROM calls ORDER BY position"
        rows = [Call(*row) for row in connection.execute(query).fetchall()]
    tick = Counter(call.pc for call in rows).most_common(1)[0][0]
    own = [call for call in rows if call.pc != tick]
    at = [call.pc for call in own].index(parting.calls[0].pc)
    assert own[at] == parting.calls[0]
    following = next(call for call in own[at:] if call.pc != own[at].pc)
    assert (parting.calls[1].pc, parting.calls[1].target) == (following.pc, following.target)
    assert sum(found.skipped) > 100


def answer(recording: Recording, query: str) -> tuple[int, ...]:
    with IndexStore(recording).connect() as connection:
        row = connection.execute(query).fetchone()
    assert row
    return row


def test_what_the_command_says(indexed: Make) -> None:
    first = indexed("stacks", "x86_64", 7).path
    other = indexed("stacks", "x86_64", 6, RECURSE_20, RECURSE_19).path
    done = retrograde("diff", first, other, "--align", "calls")
    assert done.status == 1
    text = done.stdout.decode()
    assert "0x13" in text  # what is left of rdx in one, when the other is at its 20th call
    assert "STACKS-START" in text
    assert "another x86_64-stacks.elf" in done.stderr
    done = retrograde(
        "diff", first, indexed("stacks", "x86_64", 6).path, "--align", "calls", "--json"
    )
    assert done.json()["position"] is None
    assert done.json()["common"] == done.json()["calls"][0]


def test_without_an_index(tmp_path: Path) -> None:
    both = [make_recording(tmp_path / f"{name}.retro").path for name in "ab"]
    assert_error(retrograde("diff", *both, "--align", "calls"), 2, "retrograde index")


def test_without_calls(tmp_path: Path) -> None:
    first, second = (make_recording(tmp_path / f"{name}.retro") for name in "ab")
    write_calls(first, [])
    write_calls(second, [(5, 1, 2)])
    with pytest.raises(UsageError, match="has no calls"):
        compare_calls(first, second)


def test_runs_that_have_nothing_in_common(tmp_path: Path) -> None:
    first, second = (make_recording(tmp_path / f"{name}.retro") for name in "ab")
    write_calls(first, [(5, 1, 2)])
    write_calls(second, [(5, 2, 2)])
    with pytest.raises(UsageError, match="no call in common"):
        compare_calls(first, second)


def test_runs_with_stacks_elsewhere(tmp_path: Path) -> None:
    first, second = (make_recording(tmp_path / f"{name}.retro") for name in "ab")
    write_calls(first, [(5, 1, 2), (9, 1, 2)], sp=0x1000)
    write_calls(second, [(5, 1, 2), (9, 1, 2)], sp=0x5000)
    with pytest.raises(UsageError, match="addresses that the other does not use"):
        compare_calls(first, second)


def test_recordings_of_other_targets(tmp_path: Path) -> None:
    first, second = (make_recording(tmp_path / f"{name}.retro") for name in "ab")
    machine = msgspec.structs.replace(second.manifest.machine, target="riscv64")
    other = Recording(second.folder, replaced(second, machine=machine))
    with pytest.raises(UsageError, match="of riscv64"):
        compare_calls(first, other)


def test_another_way_to_align(tmp_path: Path) -> None:
    path = make_recording(tmp_path / "a.retro").path
    done = retrograde("diff", path, path, "--align", "blocks")
    assert (done.status, "'blocks' is not 'calls'" in done.stderr) == (2, True)
