"""One process and its monitor: started, ended, spoken to."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from retrograde.errors import QemuDied, QemuRefused, QemuTimeout
from retrograde.machine import process as module
from retrograde.machine.monitor import Monitor
from retrograde.machine.process import QemuProcess, finished, send_signal, wipe_environment
from retrograde.machine.qemu import Qemu
from retrograde.machine.wiring import Wiring
from tests.system.test_endings import runs


@asynccontextmanager
async def python(code: str) -> AsyncIterator[QemuProcess]:
    process = await QemuProcess.start([sys.executable, "-c", code])
    try:
        yield process
    finally:
        await process.kill()
        process.close()


@asynccontextmanager
async def idle_qemu(qemu: Qemu, answer_seconds: float = 30.0) -> AsyncIterator[Monitor]:
    """A QEMU without a machine, and our monitor on it."""
    wiring = Wiring(None)
    chardev = f"socket,id=monitor,fd={wiring.monitor_fd}"
    words = ("-M", "none", "-nodefaults", "-display", "none")
    argv = [str(qemu.path), *words, "-chardev", chardev, "-mon", "monitor,mode=control"]
    process = await QemuProcess.start(argv, pass_fds=wiring.pass_fds)
    wiring.release_theirs()
    monitor = Monitor(process, answer_seconds)
    try:
        await monitor.connect(wiring.monitor_link)
        yield monitor
    finally:
        await process.kill()
        await monitor.close()
        process.close()
        wiring.close()


async def test_program_that_is_none() -> None:
    if shutil.which("setpriv"):
        # Then it is setpriv that starts, and ends for lack of the program.
        process = await QemuProcess.start(["/no/such/program"])
        assert await process.wait() != 0
        assert "/no/such/program" in process.stderr()
        process.close()
    else:
        with pytest.raises(QemuDied, match="could not be started"):
            await QemuProcess.start(["/no/such/program"])


async def test_last_words() -> None:
    code = "import sys; sys.stderr.write('x' * 20000 + 'the end'); sys.exit(3)"
    async with python(code) as process:
        assert await process.wait() == 3
        assert len(process.stderr()) == module.STDERR_KEPT
        error = process.died("testing")
        assert error.what.endswith("exited with status 3 while testing.")
        assert error.detail.endswith("the end")
    assert process.stderr() == ""


async def test_killed_by_a_signal_is_said() -> None:
    async with python("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)") as process:
        await process.wait()
        assert "was ended by SIGSEGV" in process.died("testing").what


async def test_wait_has_a_deadline() -> None:
    async with python("import signal; signal.pause()") as process:
        with pytest.raises(QemuTimeout, match=r"did not finish ending within 0\.05 s"):
            await process.wait(0.05)
        pid = process.pid
    assert not runs(pid)


async def test_kill_survives_cancelling() -> None:
    """Whoever is cancelled while killing must not leave a zombie."""
    async with python("import signal; signal.pause()") as process:
        task = asyncio.ensure_future(process.kill())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await process.kill()
        assert process.returncode is not None


async def test_it_stands_nowhere_with_nothing_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QEMU_AUDIO_DRV", "alsa")
    report = tmp_path / "report"
    # Where it stands is deleted once it runs, not before.
    code = (
        "import os; fds = sorted(map(int, os.listdir('/proc/self/fd')))\n"
        "while not (where := os.readlink('/proc/self/cwd')).endswith('(deleted)'): pass\n"
        f"open({str(report)!r}, 'w').write(repr((fds[:-1], where, 'QEMU_AUDIO_DRV' in os.environ,"
        " os.getsid(0) == os.getpid())))"
    )
    async with python(code) as process:
        assert await process.wait() == 0, process.stderr()
    descriptors, where, audio, session = eval(report.read_text())
    assert descriptors == [0, 1, 2]
    assert where.endswith("(deleted)")
    assert not audio
    assert session


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setenv("HARMLESS", "1")
    environment = wipe_environment()
    assert "LD_PRELOAD" not in environment
    assert environment["HARMLESS"] == "1"


@pytest.mark.qemu
async def test_monitor_answers_and_refuses(qemu: Qemu) -> None:
    async with idle_qemu(qemu) as monitor:
        assert (await monitor.execute("query-status"))["running"] is True
        with pytest.raises(QemuRefused, match=r"refused no-such-command: .*not been found"):
            await monitor.execute("no-such-command")
        assert "unknown command" in await monitor.human("nonsense")
        with pytest.raises(QemuRefused, match="refused `nonsense`"):
            await monitor.obey("nonsense")
        await monitor.obey("stop")


@pytest.mark.qemu
async def test_monitor_tells_of_a_qemu_that_left(qemu: Qemu) -> None:
    async with idle_qemu(qemu) as monitor:
        await monitor.execute("quit")
        with pytest.raises(QemuDied, match="exited with status 0 while answering query-status"):
            await monitor.execute("query-status")
        assert await monitor.stop_event() == "SHUTDOWN"  # it said so before it left


@pytest.mark.qemu
async def test_monitor_tells_of_a_qemu_that_crashed(qemu: Qemu) -> None:
    async with idle_qemu(qemu) as monitor:
        os.kill(monitor._process.pid, signal.SIGABRT)
        with pytest.raises(QemuDied, match="ended by SIGABRT while running the machine"):
            await monitor.stop_event()


@pytest.mark.qemu
async def test_monitor_has_a_deadline(qemu: Qemu) -> None:
    async with idle_qemu(qemu, answer_seconds=0.2) as monitor:
        os.kill(monitor._process.pid, signal.SIGSTOP)
        with pytest.raises(QemuTimeout, match=r"query-status within 0\.2 s"):
            await monitor.execute("query-status")


async def test_what_must_finish_does_before_it_is_cancelled() -> None:
    done = []

    async def give_back() -> None:
        await asyncio.sleep(0.05)
        done.append(True)

    task = asyncio.create_task(finished(give_back()))
    for _ in range(2):
        await asyncio.sleep(0)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [True]


async def test_a_signal_to_the_dead_leaves_their_status_to_whoever_waits(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for _ in range(200):
        process = await asyncio.create_subprocess_exec("sleep", "60")
        os.kill(process.pid, signal.SIGKILL)
        while runs(process.pid):
            pass
        send_signal(process, signal.SIGTERM)
        assert await process.wait() == -signal.SIGKILL
    assert not caplog.records
