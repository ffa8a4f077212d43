"""Repaired copies of unfinished logs: whole for the reader, and replayed by QEMU to their end."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from retrograde.errors import LogCorrupt
from retrograde.machine.qemu import Qemu
from retrograde.recording import rrevents as rr
from retrograde.recording.console import ConsoleMap
from retrograde.recording.rrevents import Event, Kind
from retrograde.recording.rrlog import RrLog
from retrograde.recording.rrrepair import write_repaired_copy

from .rrlog_writer import ENDING, KILLED, VERSIONS, encode, header, save, write

RUN = rr.Instruction(Kind.INSTRUCTION, 0, 0, 10)
WROTE = rr.CharWrite(Kind.CHAR_WRITE, 0, 0, 1, 1)
TICK = Event(Kind.CHECKPOINT_CLOCK_WARP_ACCOUNT, 0, 0)
OFF = rr.Shutdown(Kind.SHUTDOWN_GUEST_SHUTDOWN, 0, 0, "guest-shutdown")


@pytest.mark.parametrize("kept_header", [True, False])
def test_cut_at_every_byte(tmp_path: Path, kept_header: bool) -> None:
    data, placed = write([TICK, RUN, WROTE, RUN, TICK, TICK, RUN, WROTE, OFF, RUN, *ENDING])
    first = next(e for e in placed if e.kind == Kind.INSTRUCTION)
    for size in range(first.offset + len(encode(first)), len(data)):
        cut = data[:size] if kept_header else KILLED + data[12:size]
        broken = RrLog.open(save(tmp_path / "cut", cut), salvage=True)
        destination = tmp_path / f"repaired{size}"
        summary = write_repaired_copy(broken, destination)
        events = list(RrLog.open(destination).events())
        whole = [e for e in placed if e.offset + len(encode(e)) <= size]
        last_run = max(n for n, e in enumerate(whole) if e.kind == Kind.INSTRUCTION)
        assert events[:-2] == whole[:last_run]
        assert [e.kind for e in events[-2:]] == [Kind.SHUTDOWN_HOST_SIGNAL, Kind.END]
        assert summary.end == broken.summary().end
        assert (summary.finalized, summary.ended, summary.tail_bytes) == (True, True, 0)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_whole_log_is_copied_as_it_is(tmp_path: Path, version: int) -> None:
    data, _ = write([RUN, WROTE, OFF, RUN, *ENDING], header(version))
    source = save(tmp_path / "whole", data)
    write_repaired_copy(RrLog.open(source), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data
    # Killed between END and the header, which QEMU writes last.
    killed = RrLog.open(save(tmp_path / "killed", KILLED + data[12:]), unfinished=version)
    write_repaired_copy(killed, tmp_path / "finalized")
    assert (tmp_path / "finalized").read_bytes() == data


def test_nothing_to_replay(tmp_path: Path) -> None:
    data, _ = write([TICK, TICK], KILLED)
    with pytest.raises(LogCorrupt, match="nothing to replay"):
        write_repaired_copy(RrLog.open(save(tmp_path / "log", data)), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_damage_elsewhere_is_not_repaired(tmp_path: Path) -> None:
    data, _ = write([RUN, TICK], KILLED)
    with pytest.raises(LogCorrupt, match="no event kind 255"):
        write_repaired_copy(RrLog.open(save(tmp_path / "log", data + b"\xff")), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_an_existing_file_is_kept(tmp_path: Path) -> None:
    data, _ = write([RUN, *ENDING])
    with pytest.raises(FileExistsError):
        write_repaired_copy(
            RrLog.open(save(tmp_path / "log", data)), save(tmp_path / "mine", b"mine")
        )
    assert (tmp_path / "mine").read_bytes() == b"mine"


def command(mode: str, log: Path, console: Path) -> list[str]:
    """A PC with only its firmware, which talks to the serial port and finds no disk."""
    return [
        "qemu-system-x86_64",
        *("-M", "pc,hpet=off,graphics=off", "-global", "apic-common.vapic=off", "-m", "32"),
        *("-nodefaults", "-display", "none", "-serial", f"file:{console}"),
        *("-icount", f"shift=7,rr={mode},rrfile={log}"),
    ]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, qemu: Qemu) -> tuple[RrLog, bytes]:
    """A log whose recorder was killed when the firmware had said all it has to; its console."""
    place = tmp_path_factory.mktemp("killed")
    log, console = place / "replay.log", place / "console.log"
    process = subprocess.Popen(command("record", log, console), stdin=subprocess.DEVNULL)
    try:
        while not (console.exists() and b"No bootable device" in console.read_bytes()):
            # Not a nap: it ends at once if QEMU dies.
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.05)
    finally:
        process.kill()
        process.wait()
    return RrLog.open(log, unfinished=qemu.log_version), console.read_bytes()


def replay(tmp_path: Path, log: Path) -> tuple[subprocess.CompletedProcess[str], bytes]:
    console = tmp_path / "replayed"
    run = subprocess.run(
        command("replay", log, console),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    # Refusing the log, QEMU does not get as far as to open the console.
    return run, console.read_bytes() if console.exists() else b""


def stopped_at(log: Path, console: Path) -> int:
    """The icount QEMU reports when the replay has stopped by itself."""
    process = subprocess.Popen(
        [*command("replay", log, console), "-no-shutdown", "-qmp", "stdio"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    with process:
        assert process.stdin and process.stdout
        try:
            process.stdin.write('{"execute": "qmp_capabilities"}\n')
            for line in process.stdout:
                message = json.loads(line)
                if message.get("event") == "STOP":
                    process.stdin.write('{"execute": "query-replay"}\n')
                if "icount" in message.get("return", {}):
                    return int(message["return"]["icount"])
        finally:
            process.kill()
    raise AssertionError("QEMU ended before its replay did")


@pytest.mark.qemu
def test_qemu_replays_a_repaired_log_to_its_end(
    tmp_path: Path, killed: tuple[RrLog, bytes]
) -> None:
    log, console = killed
    assert not log.finalized
    refused, _ = replay(tmp_path, log.path)
    assert "invalid input log file version" in refused.stderr

    summary = write_repaired_copy(log, tmp_path / "repaired")
    run, replayed = replay(tmp_path, tmp_path / "repaired")
    assert (run.returncode, run.stderr) == (0, "")
    assert replayed == ConsoleMap.of(RrLog.open(tmp_path / "repaired"), replayed).data
    assert console.startswith(replayed)
    assert summary.shutdown == "host-signal"
    assert stopped_at(tmp_path / "repaired", tmp_path / "again") == summary.end


@pytest.mark.qemu
def test_qemu_replays_a_log_cut_between_an_instruction_and_what_it_wrote(
    tmp_path: Path, killed: tuple[RrLog, bytes]
) -> None:
    log, console = killed
    raw = log.path.read_bytes()
    events = list(log.events())
    writes = [
        number
        for number, event in enumerate(events)
        if event.kind == Kind.CHAR_WRITE and events[number - 1].kind == Kind.INSTRUCTION
    ]
    number = writes[len(writes) // 2]
    cut = save(tmp_path / "cut", raw[: events[number].offset + 3])
    cut_log = RrLog.open(cut, unfinished=log.layout.version)
    write_repaired_copy(cut_log, tmp_path / "repaired")
    run, replayed = replay(tmp_path, tmp_path / "repaired")
    assert (run.returncode, run.stderr) == (0, "")
    before = [event for event in events[:number] if event.kind == Kind.CHAR_WRITE]
    assert replayed == console[: len(before)]

    # The proof that the cut before the INSTRUCTION is needed.
    naive, _ = write([*events[:number], *ENDING], log.layout.header)
    run, _ = replay(tmp_path, save(tmp_path / "naive", naive))
    # QEMU 10.0 aborts; 7.2 exits with status 1.
    assert run.returncode in (1, -signal.SIGABRT)
    assert "Missing character write event" in run.stderr or run.returncode < 0
