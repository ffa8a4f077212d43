"""Symbols of a kernel that ran elsewhere than it was linked, as KASLR has it; with real gdb."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from retrograde.guests.builtin import builtin_guest
from retrograde.index.symbols.entrypoints import handlers
from retrograde.recording.bundle import Recording
from retrograde.timeline.pages import PAGE
from retrograde.timeline.sync import open_timeline
from retrograde.timeline.timeline import Timeline
from tests.command import retrograde

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.gdb,
    pytest.mark.usefixtures("probe"),
    pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed"),
    pytest.mark.skipif(shutil.which("objcopy") is None, reason="binutils are not installed"),
]

SLIDE = 0x1234000
RAN = 0x100018


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """A guest in whose memory, on its command line, stands what Linux tells crash dumps."""
    guest = builtin_guest()
    output = tmp_path_factory.mktemp("booted") / "moved.retro"
    told = f"SYMBOL(_stext)={RAN:016x}\n"
    done = retrograde(
        *("record", "-o", output, "--shift", "7", "--"), *guest.qemu_args, "-append", told
    )
    assert done.status == 0, done.stderr
    return Recording.open(output)


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guest's program as linked higher up, with the anchor and a per-cpu section at 0."""
    (image,) = builtin_guest().files
    folder = tmp_path_factory.mktemp("linked files")
    (folder / "percpu").write_bytes(bytes(64))
    moved = folder / "vmlinux"
    subprocess.run(
        [
            *("objcopy", "--change-addresses", hex(SLIDE), "--add-symbol", "_stext=.text:0"),
            *("--add-section", f".data..percpu={folder / 'percpu'}"),
            *("--set-section-flags", ".data..percpu=alloc,load,data"),
            *("--change-section-address", ".data..percpu=0"),
            *("--add-symbol", "per_cpu_count=.data..percpu:0x40", str(image), str(moved)),
        ],
        check=True,
        stderr=subprocess.DEVNULL,  # of a section outside of all segments
    )
    return moved


def gdb(recording: Recording, *lines: str, options: Sequence[str | Path] = ()) -> str:
    commands = [word for line in lines for word in ("-ex", line)]
    done = retrograde("debug", recording.path, *options, "--", "-nx", "-batch", *commands)
    assert done.status == 0, done.stderr
    return done.stdout.decode() + done.stderr


def test_debug_puts_them_where_the_code_ran(booted: Recording, linked: Path) -> None:
    said = gdb(
        booted,
        *("info address _stext", "info address per_cpu_count", "break main", "continue"),
        *("info symbol $pc", "retro when"),
        options=("--symbols", linked),
    )
    assert f"vmlinux is moved by {-SLIDE & (1 << 64) - 1:#x}" in said
    assert f'"_stext" is at {RAN:#x} ' in said
    assert '"per_cpu_count" is at 0x40 ' in said
    assert "Breakpoint 1, 0x" in said
    assert "main in section .text" in said
    assert "warning" not in said


def test_a_recording_with_no_checkpoint_but_the_first(booted: Recording, linked: Path) -> None:
    """There is nothing of the kernel in memory yet: the end of the recording is looked at."""
    recording = Recording.open(booted.path)
    shutil.rmtree(recording.cache, ignore_errors=True)
    with open_timeline(recording, budget=2 * PAGE) as timeline:
        (first,) = timeline.ask(_checkpoints)
    assert first == 0
    said = gdb(booted, "info address _stext", options=("--symbols", linked))
    assert f'"_stext" is at {RAN:#x} ' in said
    assert retrograde("query", booted.path, "--symbols", linked, "FROM symbols").status == 0
    sql = "SELECT address FROM symbols WHERE name IN ('_stext', 'per_cpu_count') ORDER BY name"
    found = [row["address"] for row in retrograde("query", "--json", booted.path, sql).json()]
    assert found == [RAN, 0x40]


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recording, Path]:
    """A guest that says nothing of itself, and its program as linked higher up."""
    guest = builtin_guest("exceptions")
    folder = tmp_path_factory.mktemp("silent")
    done = retrograde("record", "-o", folder / "silent.retro", "--", *guest.qemu_args)
    assert done.status == 0, done.stderr
    moved, (image,) = folder / "vmlinux", guest.files
    kernel = ("--add-symbol", "_stext=.text:0")
    subprocess.run(["objcopy", "--change-addresses", hex(SLIDE), *kernel, image, moved], check=True)
    return Recording.open(folder / "silent.retro"), moved


def test_where_exceptions_are_taken_tells_where_it_ran(silent: tuple[Recording, Path]) -> None:
    """Its handlers have the names that Linux had before 5.8."""
    recording, moved = silent
    options = ("--at", "end", "--symbols", moved)
    said = gdb(recording, "info address page_fault", options=options)
    assert f"vmlinux is moved by {-SLIDE & (1 << 64) - 1:#x}" in said
    with open_timeline(recording, at="end") as timeline:
        ran = timeline.ask(handlers)
    assert f"is at {ran['page_fault']:#x} " in said
    assert retrograde("query", recording.path, "--symbols", moved, "FROM symbols").status == 0
    sql = "SELECT address FROM symbols WHERE name = 'page_fault'"
    (found,) = retrograde("query", "--json", recording.path, sql).json()
    assert found == {"address": ran["page_fault"]}


def test_before_there_are_handlers_none_are_told(silent: tuple[Recording, Path]) -> None:
    recording, moved = silent
    assert "is moved" not in gdb(recording, "retro when", options=("--symbols", moved))


async def _checkpoints(timeline: Timeline) -> list[int]:
    return [checkpoint.position for checkpoint in timeline.store.checkpoints]


@pytest.mark.parametrize("loading", ("retro symbols {}", "symbol-file {}", "file {}"))
def test_those_loaded_in_gdb_are_put_in_place(
    booted: Recording, linked: Path, loading: str
) -> None:
    """`file` says nothing to hooks; `retro symbols` alone puts right what is loaded."""
    lines = [loading.format(f'"{linked}"'), *(["retro symbols"] if loading == "file {}" else [])]
    said = gdb(booted, *lines, "info address _stext", "info address per_cpu_count")
    assert f'"_stext" is at {RAN:#x} ' in said
    assert '"per_cpu_count" is at 0x40 ' in said


def test_symbols_of_other_code_are_doubted(booted: Recording, tmp_path: Path) -> None:
    (image,) = builtin_guest("hot").files
    elsewhere = tmp_path / "elsewhere"
    subprocess.run(["objcopy", "--change-addresses", "0x40000000", image, elsewhere], check=True)
    said = gdb(booted, "info address main", options=("--symbols", elsewhere))
    assert "warning: elsewhere is not of what ran here" in said
    assert "is at 0x40100" in said


def test_code_that_no_checkpoint_is_in_is_not_doubted(booted: Recording, tmp_path: Path) -> None:
    (image,) = builtin_guest().files
    elsewhere = tmp_path / "elsewhere"
    subprocess.run(["objcopy", "--change-addresses", "0x40000000", image, elsewhere], check=True)
    assert "warning" not in gdb(booted, "info address main", options=("--symbols", elsewhere))
