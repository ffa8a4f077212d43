"""Processes as the kernel's calls tell them, in tables written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from retrograde.errors import UsageError
from retrograde.index.compare.processdiff import choose
from retrograde.index.questions.processes import Named, Processes, Program
from retrograde.index.symbols.symbols import MEMORY
from retrograde.index.tables.store import IndexStore
from retrograde.index.tables.tables import TABLES
from retrograde.recording.bundle import Recording
from tests.command import assert_error, retrograde
from tests.recording.handmade import make_recording, replaced

NAMES = {
    "start_thread": 0x1000,
    "__switch_to_asm": 0x2000,
    "wake_up_new_task": 0x3000,
    "do_exit": 0x4000,
    "init_task": 0x5000,
}
SPACE, OTHER = 0x7000000, 0x9000000
KERNEL_HALF = 0x1000
FIRST, SECOND, THIRD = 0xFF01, 0xFF02, 0xFF03


def begin(position: int, space: int = SPACE) -> tuple[int, str, int, int, int]:
    return position, "start_thread", 0, 0x400000, space


def switch(position: int, task: int, space: int = SPACE) -> tuple[int, str, int, int, int]:
    return position, "__switch_to_asm", 0, task, space


def birth(position: int, task: int, space: int = SPACE) -> tuple[int, str, int, int, int]:
    return position, "wake_up_new_task", task, 0, space


def end(position: int, space: int = SPACE) -> tuple[int, str, int, int, int]:
    return position, "do_exit", 0, 0, space


def write(
    recording: Recording,
    calls: Sequence[tuple[int, str, int, int, int]],
    user: Sequence[tuple[int, int, int]],
    names: dict[str, int] = NAMES,
) -> Recording:
    """Write tables: calls of the kernel, and spans of user mode with their address spaces."""
    store = IndexStore(recording)
    _write(
        store,
        recording,
        "calls",
        [
            {"position": at, "target": NAMES[name], "arg0": zero, "arg1": one, "space": space}
            for at, name, zero, one, space in calls
        ],
    )
    changes: list[tuple[int, str, int]] = []
    for start, stop, space in user:
        changes += [(start, "space", space), (start, "privilege", 3), (stop, "privilege", 0)]
    _write(
        store,
        recording,
        "context",
        [{"position": at, "kind": kind, "value": value} for at, kind, value in changes],
    )
    store.claim("symbols", MEMORY)
    _write(
        store,
        recording,
        "symbols",
        [
            {"address": address, "name": name, "type": "T", "main": True, "module": None}
            for name, address in names.items()
        ],
    )
    return recording


def _write(
    store: IndexStore, recording: Recording, table: str, rows: Sequence[dict[str, Any]]
) -> None:
    columns = {
        column.name: [row.get(column.name) for row in rows]
        if column.type == "VARCHAR" or (rows and rows[0].get(column.name, 0) is None)
        else np.array([row.get(column.name, 0) for row in rows])
        for column in TABLES[table].columns
    }
    store.write(table, 0, recording.end, columns)


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    return make_recording(tmp_path / "a.retro")


def spans(recording: Recording, number: int = 0) -> list[tuple[tuple[int, ...], int, int]]:
    processes = Processes(recording)
    return [tuple(one) for one in processes.ran(processes.programs[number]).spans]


def test_a_process_is_a_space_from_a_program_on(recording: Recording) -> None:
    write(
        recording,
        [switch(10, FIRST), begin(20), end(90)],
        [(12, 15, SPACE), (25, 30, SPACE | KERNEL_HALF), (40, 50, OTHER), (60, 70, SPACE)],
    )
    assert spans(recording) == [((), 25, 30), ((), 60, 70)]
    processes = Processes(recording)
    assert processes.ran(processes.programs[0]).ended == {()}


def test_threads_are_known_by_who_made_them(recording: Recording) -> None:
    calls = [
        *(switch(10, FIRST), begin(20), birth(30, SECOND), birth(31, 0xDEAD), birth(32, THIRD)),
        *(switch(40, SECOND), birth(45, 0xFF04), switch(50, 0xFF04), switch(60, THIRD)),
        *(end(65), switch(70, FIRST)),
    ]
    user = [(25, 30, SPACE), (41, 44, SPACE), (51, 55, SPACE), (61, 63, SPACE), (71, 75, SPACE)]
    write(recording, calls, user)
    threads = [thread for thread, _, _ in spans(recording)]
    assert threads == [(), (0,), (0, 0), (2,), ()]
    processes = Processes(recording)
    assert processes.ran(processes.programs[0]).ended == {(2,)}


def test_memory_of_a_task_that_is_used_again_is_another_thread(recording: Recording) -> None:
    calls = [switch(10, FIRST), begin(20), birth(30, SECOND), switch(40, SECOND), end(44)]
    calls += [switch(50, FIRST), birth(55, SECOND), switch(60, SECOND)]
    write(recording, calls, [(41, 43, SPACE), (51, 53, SPACE), (61, 63, SPACE)])
    assert [thread for thread, _, _ in spans(recording)] == [(0,), (), (1,)]


def test_a_program_that_begins_in_its_place_ends_a_process(recording: Recording) -> None:
    """Its space may even be the same: it was given back and taken again."""
    write(
        recording,
        [switch(10, FIRST), begin(20), begin(40)],
        [(21, 30, SPACE), (41, 50, SPACE)],
    )
    assert spans(recording, 0) == [((), 21, 30)]
    assert spans(recording, 1) == [((), 41, 50)]


def test_others_in_a_space_that_is_used_again_are_no_threads(recording: Recording) -> None:
    """A child with a space of its own makes one that gets the space of the process."""
    calls = [switch(10, FIRST), begin(20), birth(30, SECOND), end(40), switch(45, SECOND, OTHER)]
    calls += [birth(50, THIRD, OTHER), switch(60, THIRD)]
    write(recording, calls, [(21, 25, SPACE), (46, 48, OTHER), (61, 65, SPACE)])
    assert spans(recording) == [((), 21, 25)]


def test_what_cannot_be_told(tmp_path: Path) -> None:
    both = [make_recording(tmp_path / f"{name}.retro") for name in "ab"]
    paths = [one.path for one in both]
    done = retrograde("diff", *paths, "--process", "sh")
    assert_error(done, 2, "a.retro has no index", "retrograde index")
    machine = msgspec.structs.replace(both[0].manifest.machine, target="riscv64")
    other = Recording(both[0].folder, replaced(both[0], machine=machine))
    with pytest.raises(UsageError, match="of riscv64: processes are told on x86_64 only"):
        Processes(other)
    write(both[0], [], [], {"init_task": 0x5000})
    assert_error(retrograde("diff", *paths, "--process", "sh"), 2, "tells no start_thread")
    assert_error(retrograde("diff", *paths, "--past", "inputs"), 2, "goes with --process")
    words = ("--process", "sh", "--align", "calls")
    assert_error(retrograde("diff", *paths, *words), 2, "exclude each other")


def named(*names: str) -> list[Named]:
    return [Named(name, Program(100 * number, 1, SPACE, 0, 0)) for number, name in enumerate(names)]


def test_which_process_is_meant(recording: Recording) -> None:
    assert choose("sh", named("init", "sh"), recording).position == 100
    assert choose("init#2", named("init", "sh", "init"), recording).position == 200
    assert choose("a#1", named("a", "a#1", "a"), recording).position == 100  # that is its name
    assert choose("a-name-longer-than-kept", named("a-name-longer-t"), recording).position == 0
    with pytest.raises(UsageError, match="has 2 processes sh, begun at 0, 100"):
        choose("sh", named("sh", "sh"), recording)
    with pytest.raises(UsageError, match="has 1 process sh,"):
        choose("sh#2", named("sh"), recording)
    with pytest.raises(UsageError, match="has no process bash") as refused:
        choose("bash", named("sh", "sh", "init"), recording)
    assert refused.value.remedy == "Its processes are: sh, init."
