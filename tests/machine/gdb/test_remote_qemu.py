"""The gdb client against real QEMU: SeaBIOS, live and in replay."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from retrograde.errors import QemuDied, QemuRefused
from retrograde.isa.isa import isa_for
from retrograde.machine.gdb.remote import GdbRemote
from retrograde.machine.segment import ask_linear_pc

QEMU = shutil.which("qemu-system-x86_64")

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(
        QEMU is None or shutil.which("qemu-img") is None,
        reason="needs qemu-system-x86_64 and qemu-img",
    ),
]

MACHINE = (
    *("-M", "pc,hpet=off", "-global", "apic-common.vapic=off", "-m", "16"),
    *("-nodefaults", "-display", "none", "-no-reboot", "-serial", "null"),
)
RECORDED = 300_000
"""Instructions recorded at least: past SeaBIOS's start, within a blink."""

X86_64 = isa_for("x86_64")


class Qmp:
    """Just enough QMP to drive these tests without the code under test."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._process, self._reader, self._writer = process, reader, writer

    async def greet(self) -> None:
        await self._receive()
        await self.execute("qmp_capabilities")

    async def quit(self) -> None:
        """End QEMU and see it gone: only then is its log complete."""
        await self.execute("quit")
        await self._process.wait()

    async def execute(self, command: str, **arguments: object) -> Any:
        request = {"execute": command, "arguments": arguments}
        self._writer.write(json.dumps(request).encode() + b"\n")
        while True:
            reply = await self._receive()
            if "return" in reply:
                return reply["return"]
            assert "error" not in reply, reply

    async def event(self, name: str) -> None:
        while (await self._receive()).get("event") != name:
            pass

    async def position(self) -> int:
        return int((await self.execute("query-replay"))["icount"])

    async def close(self) -> None:
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()

    async def _receive(self) -> dict[str, Any]:
        line = await self._reader.readline()
        assert line, "QEMU closed its monitor"
        reply: dict[str, Any] = json.loads(line)
        return reply


@asynccontextmanager
async def qemu(folder: Path, *arguments: str) -> AsyncIterator[Qmp]:
    """Run a QEMU with its gdbstub at `folder`/gdb; gone without trace afterwards."""
    assert QEMU is not None
    process = await asyncio.create_subprocess_exec(
        *(QEMU, *MACHINE, *arguments),
        *("-qmp", f"unix:{folder}/qmp,server=on,wait=off"),
        *("-gdb", f"unix:{folder}/gdb,server=on,wait=off"),
        stdin=asyncio.subprocess.DEVNULL,
    )
    qmp = None
    try:
        while not (folder / "gdb").is_socket() or not (folder / "qmp").is_socket():
            assert process.returncode is None
            await asyncio.sleep(0)
        qmp = Qmp(process, *await asyncio.open_unix_connection(folder / "qmp"))
        await qmp.greet()
        yield qmp
    finally:
        if qmp is not None:
            await qmp.close()
        if process.returncode is None:
            process.kill()
        await process.wait()
        (folder / "qmp").unlink(missing_ok=True)
        (folder / "gdb").unlink(missing_ok=True)
    assert not Path(f"/proc/{process.pid}").exists()


@pytest.fixture
def folder() -> Any:
    # Not tmp_path: a Unix socket's path has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="rsp") as name:
        yield Path(name)


def rr(folder: Path, mode: str) -> tuple[str, ...]:
    return (
        *("-icount", f"shift=7,rr={mode},rrfile={folder}/replay.log,rrsnapshot=init"),
        *("-drive", f"file={folder}/machine.qcow2,if=none,id=rr"),
    )


@pytest.fixture
async def recorded(folder: Path) -> Path:
    creation = await asyncio.create_subprocess_exec(
        *("qemu-img", "create", "-q", "-f", "qcow2", f"{folder}/machine.qcow2", "1M")
    )
    assert await creation.wait() == 0
    async with qemu(folder, *rr(folder, "record")) as qmp:
        while await qmp.position() < RECORDED:
            pass
        await qmp.quit()
    return folder


@asynccontextmanager
async def replaying(folder: Path) -> AsyncIterator[tuple[Qmp, GdbRemote]]:
    async with qemu(folder, *rr(folder, "replay"), "-S", "-no-shutdown") as qmp:
        remote = await GdbRemote.connect(folder / "gdb")
        try:
            yield qmp, remote
        finally:
            await remote.close()


async def test_a_live_machine_at_reset(folder: Path) -> None:
    async with qemu(folder, "-S"):
        remote = await GdbRemote.connect(folder / "gdb")
        layout = await remote.register_layout(X86_64)
        assert layout.architecture == X86_64.gdb_architecture
        packet = await remote.read_registers()
        assert len(packet) == 2 * layout.size
        values = layout.decode(packet, X86_64.order_at({}))
        assert await ask_linear_pc(X86_64, values, remote.monitor) == 0xFFFFFFF0
        assert {X86_64.pc, X86_64.sp} <= set(values)
        # The reset vector holds a far jump into SeaBIOS.
        assert (await remote.read_memory(0xFFFFFFF0, 1)) == b"\xea"
        await remote.physical_memory_mode(True)
        image = await remote.read_memory(0xFFFF_0000, 0x1_0000)
        assert (len(image), image[0xFFF0]) == (0x1_0000, 0xEA)
        await remote.physical_memory_mode(False)
        assert "VM status: paused" in await remote.monitor("info status")
        with pytest.raises(QemuRefused, match="not replaying"):
            await remote.reverse_step()
        steps = await remote.step_many(20)
        assert (len(steps.registers), steps.positions) == (20, [])
        await remote.resume()
        assert (await remote.interrupt()).signal == 2
        await remote.close()


async def test_fifty_steps_and_fifty_back(recorded: Path) -> None:
    async with replaying(recorded) as (qmp, remote):
        assert remote.supports_reverse
        states = [await remote.read_registers()]
        for _ in range(50):
            assert (await remote.step()).is_plain_trap
            states.append(await remote.read_registers())
        assert await qmp.position() == 50
        for position in reversed(range(50)):
            assert (await remote.reverse_step()).is_plain_trap
            assert await remote.read_registers() == states[position]
        assert await qmp.position() == 0
        with pytest.raises(QemuRefused, match="E14"):
            await remote.reverse_step()
        assert await remote.read_registers() == states[0]


async def test_many_steps_are_the_same_as_single_ones(recorded: Path) -> None:
    async with replaying(recorded) as (_, remote):
        single = []
        for _ in range(200):
            await remote.step()
            single.append(await remote.read_registers())
    async with replaying(recorded) as (qmp, remote):
        steps = await remote.step_many(200)
        assert steps.registers == single
        assert steps.positions == list(range(1, 201))
        assert await qmp.position() == 200


async def test_cancelled_steps_leave_registers_and_position_in_step(recorded: Path) -> None:
    async with replaying(recorded) as (qmp, remote):
        states = {0: await remote.read_registers()}
        steps = await remote.step_many(300)
        states |= dict(zip(steps.positions, steps.registers, strict=True))
    async with replaying(recorded) as (qmp, remote):
        for turn in range(20):
            task = asyncio.ensure_future(remote.step_many(10))
            for _ in range(turn):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
            packet = await remote.read_registers()
            assert states[await qmp.position()] == packet


async def test_a_watchpoint_ends_many_steps(recorded: Path) -> None:
    async with replaying(recorded) as (_, remote):
        layout = await remote.register_layout(X86_64)
        await remote.step_many(100)
        stack = layout.decode(await remote.read_registers(), "little")["rsp"]
        # Wherever the next push below this stack pointer goes, it stops the burst.
        await remote.insert_breakpoint("write", stack - 4, 4)
        steps = await remote.step_many(5000)
        assert steps.stop.address is not None
        assert stack - 4 <= steps.stop.address < stack
        assert len(steps.registers) == len(steps.positions) < 5000
        await remote.remove_breakpoint("write", stack - 4, 4)


async def test_many_steps_reach_the_end_of_the_log_and_stop_there(recorded: Path) -> None:
    async with replaying(recorded) as (qmp, remote):
        await remote.resume()
        assert (await remote.wait_stop()).signal == 3
        end = await qmp.position()
    # Another process: QEMU 7.2 cannot go back from the end (docs/quirks.md).
    async with replaying(recorded) as (qmp, remote):
        await qmp.execute("replay-seek", icount=end - 40)
        await qmp.event("STOP")
        assert await remote.position() == end - 40
        steps = await remote.step_many(1000, until=end)
        assert steps.positions[-1] == end
        assert steps.positions.count(end) == 1


async def test_a_killed_qemu_is_named(folder: Path) -> None:
    async with qemu(folder, "-S") as qmp:
        remote = await GdbRemote.connect(folder / "gdb")
        await qmp.quit()
        with pytest.raises(QemuDied):
            await remote.read_registers()
        await remote.close()
