"""Recording as a library: how it ends, what it leaves, what it says."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import socket
from pathlib import Path

import pytest

from retrograde.errors import EnvironmentLacks, QemuTimeout, UsageError
from retrograde.machine import recorder, replayer
from retrograde.machine.gdb.remote import GdbRemote
from retrograde.machine.qemu import Qemu
from retrograde.machine.quirks import LOADING
from retrograde.machine.recorder import record
from retrograde.machine.replayer import Replayer
from retrograde.recording import rrlog
from retrograde.recording.bundle import Recording
from retrograde.recording.rrlayout import LAYOUTS
from retrograde.recording.rrlog import RrLog
from tests import leftovers
from tests.conftest import find_qemu
from tests.machine.cortexm import UNLOADABLE
from tests.system import programs

pytestmark = pytest.mark.qemu


async def our_qemu() -> int:
    """Wait until the one QEMU of this test runs the machine, and return its pid."""
    while True:
        for line in leftovers.qemus():
            if "rr=record" in line:
                return int(line.partition(":")[0])
        await asyncio.sleep(0.01)


async def grown(log: Path, size: int) -> None:
    while not log.exists() or log.stat().st_size < size:  # noqa: ASYNC110 - QEMU tells nobody
        await asyncio.sleep(0.01)


async def test_the_machine_ends_itself(tmp_path: Path, qemu: Qemu) -> None:
    said: list[str] = []
    recording = await record(
        tmp_path / "x.retro", programs.hello(tmp_path, b"Hello\n"), warn=said.append
    )
    assert recording.complete
    assert recording.manifest.ending == "guest-shutdown"
    assert recording.manifest.status == 0
    assert recording.console_path.read_bytes() == b"Hello\n"
    assert recording.end == Recording.open(tmp_path / "x.retro").end > 10
    assert said == []
    assert not (recording.path / "reserve").exists()


async def test_a_qemu_with_logs_of_an_unknown_version_is_refused_at_once(
    tmp_path: Path, qemu: Qemu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(LAYOUTS, qemu.log_version)
    unknown = f"{qemu.version[0]}.*writes logs of version {qemu.log_version:#010x}"
    with pytest.raises(EnvironmentLacks, match=unknown):
        await record(tmp_path / "x.retro", programs.hello(tmp_path))
    assert not list(tmp_path.glob("x.retro*"))


async def test_reset_ends_it_with_no_reboot(tmp_path: Path, qemu: Qemu) -> None:
    arguments = [*programs.reset(tmp_path), "-no-reboot"]
    recording = await record(tmp_path / "x.retro", arguments)
    assert recording.manifest.ending == "guest-reset"
    assert recording.complete


async def test_stop_event(tmp_path: Path, qemu: Qemu) -> None:
    stop = asyncio.Event()
    output = tmp_path / "x.retro"
    task = asyncio.create_task(record(output, programs.ticker(tmp_path), stop=stop))
    await grown(tmp_path / "x.retro.partial" / "replay.log", 1)
    stop.set()
    recording = await task
    assert (recording.complete, recording.manifest.ending) == (True, "interrupted")


async def test_cancelling_keeps_the_recording(tmp_path: Path, qemu: Qemu) -> None:
    task = asyncio.create_task(record(tmp_path / "x.retro", programs.ticker(tmp_path)))
    await grown(tmp_path / "x.retro.partial" / "replay.log", 1 << 13)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert leftovers.qemus() == []
    recording = Recording.open(tmp_path / "x.retro")
    assert (recording.complete, recording.manifest.ending) == (True, "interrupted")


async def test_a_progress_that_fails_leaves_no_process(
    tmp_path: Path, qemu: Qemu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "LOOK_SECONDS", 0.01)

    def progress(position: int) -> None:
        if position > 1_000_000:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await record(tmp_path / "x.retro", programs.ticker(tmp_path), progress=progress)
    assert leftovers.qemus() == []
    assert Recording.open(tmp_path / "x.retro").complete


async def test_rejected_machine_leaves_nothing(tmp_path: Path, qemu: Qemu) -> None:
    with pytest.raises(UsageError, match="does not accept"):
        await record(tmp_path / "x.retro", ["-device", "virtio-rng-pci,nosuch=1"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("module", "name"), [(rrlog, "open_regular"), (RrLog, "summary")])
async def test_what_cannot_be_finished_is_kept_and_said_to_be(
    module: object, name: str, tmp_path: Path, qemu: Qemu, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(module, name, fail)
        with pytest.raises(EnvironmentLacks, match=r"kept as .*x\.retro\.partial"):
            await record(tmp_path / "x.retro", programs.hello(tmp_path, b"Hello\n"))
    left = Recording.open(tmp_path / "x.retro.partial")
    assert not left.complete
    assert left.console_path.read_bytes() == b"Hello\n"
    shutil.rmtree(left.path)


async def test_all_up_to_the_shutdown_is_recorded(tmp_path: Path, qemu: Qemu) -> None:
    """QEMU before 10.2 logs it before the instructions that led to it (docs/quirks.md)."""
    recording = await record(tmp_path / "x.retro", programs.compute(tmp_path))
    assert (recording.end, recording.manifest.ending) == (programs.COMPUTED, "guest-shutdown")
    async with await Replayer.start(recording, qemu) as replaying:
        await replaying.run_to(recording.end)
    async with await Replayer.start(recording, qemu) as replaying:
        await replaying.run_to(recording.end - 1)
        gdb = await replaying.gdb()
        out, eax = await gdb.read_memory(await pc_of(gdb), 2), await gdb.read_register(0)
        assert (out.hex(), eax[:2]) == ("e6f4", b"05")


async def pc_of(gdb: GdbRemote) -> int:
    """The linear address of the next instruction, in the PC's firmware."""
    return 0xF0000 + int.from_bytes(bytes.fromhex((await gdb.read_register(16)).decode()), "little")


async def test_a_guest_to_which_nothing_happens_is_no_hung_qemu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QEMU does not listen for 2**31 ns of the guest's time then: here 1 G instructions."""
    qemu = find_qemu("aarch64")
    for module, name in (
        *((recorder, "LOOK_SECONDS"), (recorder, "EXIT_SECONDS")),
        *((replayer, "LOOK_SECONDS"), (replayer, "STALL_SECONDS")),
    ):
        monkeypatch.setattr(module, name, 1.0)
    arguments = [*programs.busy(tmp_path), "-icount", "shift=1"]
    recording = await record(
        tmp_path / "x.retro", arguments, target="aarch64", timeout=1.5, answer_seconds=1.0
    )
    assert recording.complete
    assert recording.manifest.status == 0
    assert recording.end >= (1 << 30) - 1
    async with await Replayer.start(recording, qemu) as replaying:
        assert await replaying.run_to_end() == recording.end


async def test_hung_qemu_is_given_up(
    tmp_path: Path, qemu: Qemu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped process answers nothing and obeys no SIGTERM: it looks hung."""
    monkeypatch.setattr(recorder, "LOOK_SECONDS", 0.01)
    arguments = programs.ticker(tmp_path)
    hung = asyncio.Event()

    async def hang() -> None:
        pid = await our_qemu()
        await grown(tmp_path / "x.retro.partial" / "replay.log", 1 << 13)
        await asyncio.wait_for(hung.wait(), 60)
        os.kill(pid, signal.SIGSTOP)

    task = asyncio.create_task(hang())
    with pytest.raises(QemuTimeout, match="did not finish the QMP command query-replay") as caught:
        await record(
            tmp_path / "x.retro",
            arguments,
            progress=lambda _position: hung.set(),
            answer_seconds=1.0,
        )
    await task
    assert "kept, marked incomplete" in caught.value.remedy
    recording = Recording.open(tmp_path / "x.retro")
    assert not recording.complete
    assert recording.manifest.status == -signal.SIGKILL
    assert recording.end > 0


@pytest.mark.parametrize("by", ["timeout", "stop"])
async def test_a_qemu_that_never_answers_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """A guest that faults for ever without an instruction: QEMU's main loop never runs."""
    find_qemu("arm")
    image = tmp_path / "lost.bin"
    image.write_bytes(bytes.fromhex("00100020 01100000"))  # the stack; a reset vector into nothing
    monkeypatch.setattr(recorder, "EXIT_SECONDS", 0.2)
    stop = asyncio.Event()
    if by == "stop":
        stop.set()
    try:
        recording = await record(
            tmp_path / "x.retro",
            ["-M", UNLOADABLE, "-nographic", "-kernel", str(image)],
            target="arm",
            timeout=1 if by == "timeout" else None,
            without_quirks=frozenset({LOADING.name}),
            stop=stop,
        )
    except QemuTimeout as error:
        assert "ran not one instruction" in str(error)
        assert not list(tmp_path.glob("x.retro*"))
    else:  # a QEMU that was asked to end before it began to run the guest
        assert recording.complete
        assert recording.end == 0
    assert leftovers.settled_qemus() == []


async def test_typed_input_is_recorded(tmp_path: Path, qemu: Qemu) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        task = asyncio.create_task(
            record(tmp_path / "x.retro", programs.echo(tmp_path), console=theirs)
        )
        loop = asyncio.get_running_loop()
        echoed = b""
        for typed in (b"one", b" two", b"\x04"):
            while not echoed.endswith((b">", b"one", b" two")):
                echoed += await loop.sock_recv(ours, 100)
            await loop.sock_sendall(ours, typed)
            echoed = b"" if typed != b"\x04" else echoed
        recording = await task
    assert recording.console_path.read_bytes() == b">one two\x04"
    console = tmp_path / "console"
    with console.open("wb") as file:
        async with await Replayer.start(recording, qemu, console_fd=file.fileno()) as replayer:
            await replayer.run_to(recording.end)
    assert console.read_bytes() == b">one two\x04"
