"""Where two runs part: exact on the model machine, refused for what cannot be compared."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from retrograde.errors import UsageError
from retrograde.index.compare import diff
from retrograde.index.compare.diff import Comparison, check_related, first_call, first_input
from retrograde.index.tables.store import IndexStore
from retrograde.index.tables.tables import TABLES
from retrograde.recording.bundle import Recording
from retrograde.recording.manifest import encode_manifest
from retrograde.testing.cpu import Instruction, Program
from retrograde.testing.model import model_timeline
from tests.command import assert_error, retrograde
from tests.recording.handmade import make_recording, replaced

LENGTH = 3000


def loop(extra: int) -> list[Instruction]:
    """A loop of 7 instructions, and one at its end that is `extra` instructions longer."""
    body = [Instruction("add", 0, 0, 1) for _ in range(6 + extra)]
    return [*body, Instruction("jump", number=-(6 + extra))]


@pytest.mark.parametrize("part", [0, 1, 63, 64, 65, 700, 2990])
async def test_the_first_other_instruction(tmp_path: Path, part: int) -> None:
    """Two programs that are equal for `part` instructions and go to other places then."""
    same = [Instruction("add", 0, 0, 1)] * part
    ours = Program([*same, Instruction("jump", number=1), *loop(0), *loop(0)], LENGTH)
    theirs = Program([*same, Instruction("jump", number=3), *loop(0), *loop(0)], LENGTH)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    async with (
        model_timeline(ours, tmp_path / "a", checkpoints=[0, 900, 2100]) as first,
        model_timeline(theirs, tmp_path / "b", checkpoints=[0, 500]) as second,
    ):
        found = await Comparison(first, second, lambda _text: None).run(0, None)
        assert found is not None
        assert found.position == part + 1
        assert found.sides[0].pc != found.sides[1].pc
        await first.seek(part)
        assert found.before == await first.pc()
        bounded = await Comparison(first, second, lambda _text: None).run(0, (part, part + 1))
        assert bounded == found


async def test_equal_runs(tmp_path: Path) -> None:
    program = Program(loop(0), LENGTH)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    async with (
        model_timeline(program, tmp_path / "a") as first,
        model_timeline(program, tmp_path / "b", checkpoints=[0, 1000]) as second,
    ):
        assert await Comparison(first, second, lambda _text: None).run(0, None) is None


@pytest.fixture
def both(tmp_path: Path) -> Callable[[bytes], tuple[Recording, Recording]]:
    """Two recordings that are equal but for the end of the second one's log."""

    def make(added: bytes) -> tuple[Recording, Recording]:
        made = [make_recording(tmp_path / f"{name}.retro") for name in "ab"]
        log = made[1].log_path.read_bytes()
        made[1].log_path.write_bytes(log[:-2] + added + log[-2:])
        return made[0], made[1]

    return make


def test_logs_that_are_equal(both: Callable[[bytes], tuple[Recording, Recording]]) -> None:
    assert first_input(*both(b"")) is None


def test_the_first_input_that_differs(
    both: Callable[[bytes], tuple[Recording, Recording]],
) -> None:
    assert first_input(*both(b"\x1c" + struct.pack(">q", 5))) == 1000


@pytest.mark.parametrize("chunk", [1, 5, 64, 1 << 20])
@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (b"abcdefgh", b"abcdefgh", None),
        (b"abcdefgh", b"Xbcdefgh", None),  # in what is skipped
        (b"abcdefgh", b"abcdXfgX", 4),
        (b"abcdefgh", b"abcde", 5),
        (b"ab", b"abcde", 2),
    ],
)
def test_the_first_byte_that_differs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ours: bytes,
    theirs: bytes,
    expected: int | None,
    chunk: int,
) -> None:
    monkeypatch.setattr(diff, "CHUNK", chunk)
    for name, data in (("a", ours), ("b", theirs)):
        (tmp_path / name).write_bytes(data)
    assert diff._first_byte(tmp_path / "a", tmp_path / "b", 1) == expected
    assert diff._first_byte(tmp_path / "b", tmp_path / "a", 1) == expected


def write_calls(recording: Recording, rows: list[tuple[int, int, int]], sp: int = 0) -> None:
    zero = np.zeros(len(rows), np.int64)
    columns = {column.name: zero for column in TABLES["calls"].columns}
    for number, name in enumerate(("position", "pc", "target")):
        columns[name] = np.array([row[number] for row in rows], np.int64)
    columns["sp"] = np.full(len(rows), sp, np.int64)
    IndexStore(recording).write("calls", 0, recording.end, columns)


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ([(5, 1, 2), (9, 1, 2)], [(5, 1, 2), (9, 1, 2)], None),
        ([(5, 1, 2), (9, 1, 2)], [(5, 1, 2), (9, 1, 3)], (5, 9)),
        ([(5, 1, 2), (9, 1, 2)], [(5, 1, 2), (8, 1, 2)], (5, 8)),
        ([(5, 1, 2), (9, 1, 2)], [(5, 1, 2)], (5, 9)),
        ([(5, 1, 2)], [(6, 1, 2)], (0, 5)),
    ],
)
def test_the_first_call_that_differs(
    both: Callable[[bytes], tuple[Recording, Recording]],
    ours: list[tuple[int, int, int]],
    theirs: list[tuple[int, int, int]],
    expected: tuple[int, int] | None,
) -> None:
    first, second = both(b"")
    write_calls(first, ours)
    assert first_call(first, second, 0) is None  # the other has no index
    write_calls(second, theirs)
    assert first_call(first, second, 0) == expected


def test_unrelated_recordings(both: Callable[[bytes], tuple[Recording, Recording]]) -> None:
    first, second = both(b"")
    (entry,) = second.manifest.inputs
    other = replaced(second, inputs=(msgspec.structs.replace(entry, sha256="1" * 64),))
    with pytest.raises(UsageError, match="another kernel"):
        check_related(first, Recording(second.folder, other))
    other = replaced(second, machine=msgspec.structs.replace(second.manifest.machine, shift=3))
    with pytest.raises(UsageError, match="different machines"):
        check_related(first, Recording(second.folder, other))
    (second.path / "manifest.json").write_bytes(encode_manifest(other))
    assert_error(retrograde("diff", first.path, second.path), 2, "different machines")


def test_a_recording_and_itself(both: Callable[[bytes], tuple[Recording, Recording]]) -> None:
    first, _ = both(b"")
    done = retrograde("diff", first.path, first.path)
    assert (done.status, done.stdout.decode().split(":")[0]) == (0, "No difference")
    assert retrograde("diff", "--json", first.path, first.path).json() == {"position": None}
