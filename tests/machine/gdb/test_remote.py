"""The gdb client against a stub with QEMU's manners; the real one is in the qemu tests."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest

from retrograde.errors import QemuDied, QemuRefused, QemuTimeout, UsageError
from retrograde.isa.isa import isa_for
from retrograde.machine.gdb.remote import GdbRemote
from retrograde.wire.rsp import encode
from retrograde.wire.rsp_stop import StopReason
from tests.machine.fakestub import FakeStub

Connect = Callable[[FakeStub], Awaitable[GdbRemote]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    remotes: list[tuple[FakeStub, GdbRemote]] = []

    async def connect_to(stub: FakeStub) -> GdbRemote:
        remote = await GdbRemote.connect(await stub.serve(), seconds=10)
        remotes.append((stub, remote))
        return remote

    yield connect_to
    for stub, remote in remotes:
        await remote.close()
        stub.transport.abort()
        assert not stub.offences


def position_of(packet: bytes) -> int:
    return int.from_bytes(bytes.fromhex(packet.decode()), "little")


async def test_features_are_parsed(connect: Connect) -> None:
    remote = await connect(FakeStub())
    assert remote.features["PacketSize"] == "1000"
    assert remote.features["qXfer:features:read"] is True
    assert remote.supports_reverse


@pytest.mark.parametrize("no_ack", [False, True])
async def test_every_packet_is_acknowledged_unless_agreed_otherwise(
    connect: Connect, no_ack: bool
) -> None:
    stub = FakeStub(no_ack=no_ack)
    remote = await connect(stub)
    await remote.read_registers()
    await remote.read_registers()
    # The last reply's acknowledgement travels with the next request.
    assert stub.acks == (2 if no_ack else len(stub.requests) - 1)


async def test_a_step_moves_and_reports(connect: Connect) -> None:
    remote = await connect(FakeStub())
    assert (await remote.step()).is_plain_trap
    assert position_of(await remote.read_registers()) == 1
    assert (await remote.reverse_step()).is_plain_trap
    assert position_of(await remote.read_registers()) == 0


@pytest.mark.parametrize("back", ["reverse_step", "reverse_continue"])
async def test_going_back_is_never_asked_of_a_qemu_that_is_not_replaying(
    connect: Connect, back: str
) -> None:
    stub = FakeStub(replaying=False)
    remote = await connect(stub)
    with pytest.raises(QemuRefused, match="not replaying"):
        await getattr(remote, back)()
    assert not {b"bs", b"bc"} & set(stub.requests)


async def test_no_earlier_position_is_a_refusal_and_nothing_is_stuck(connect: Connect) -> None:
    stub = FakeStub()
    stub.replies[b"bs"] = b"E14"
    remote = await connect(stub)
    with pytest.raises(QemuRefused, match="E14"):
        await remote.reverse_step()
    assert position_of(await remote.read_registers()) == 0


async def test_many_steps_keep_every_state(connect: Connect) -> None:
    remote = await connect(FakeStub())
    steps = await remote.step_many(100)
    assert [position_of(packet) for packet in steps.registers] == list(range(1, 101))
    assert steps.positions == list(range(1, 101))
    assert steps.stop.is_plain_trap


async def test_many_steps_without_replay_have_no_positions(connect: Connect) -> None:
    stub = FakeStub(replaying=False)
    remote = await connect(stub)
    steps = await remote.step_many(3)
    assert (len(steps.registers), steps.positions) == (3, [])
    assert sum(request.startswith(b"qRcmd") for request in stub.requests) == 1


@pytest.mark.parametrize("special", [b"T05thread:01;watch:1000;", b"T03thread:01;"])
async def test_many_steps_end_at_a_stop_that_is_no_plain_step(
    connect: Connect, special: bytes
) -> None:
    stub = FakeStub()
    remote = await connect(stub)
    stub.stops.extend([b"T05thread:01;", b"T05thread:01;", special])
    steps = await remote.step_many(10)
    assert [position_of(packet) for packet in steps.registers] == [1, 2, 3]
    assert not steps.stop.is_plain_trap
    assert await remote.wait_stop() == steps.stop
    assert stub.position == 3


@pytest.mark.parametrize("until", [1, 2, 7])
async def test_no_step_is_taken_at_the_end(connect: Connect, until: int) -> None:
    stub = FakeStub()
    stub.delivering = True
    remote = await connect(stub)
    steps = await remote.step_many(100, until=until)
    assert steps.positions == sorted(2 * list(range(1, until)) + [until])
    assert stub.requests.count(b"s") == len(steps.registers)


async def test_many_steps_need_room(connect: Connect) -> None:
    remote = await connect(FakeStub())
    with pytest.raises(UsageError):
        await remote.step_many(0)
    with pytest.raises(UsageError):
        await remote.step_many(1, until=0)


async def test_resume_and_interrupt(connect: Connect) -> None:
    stub = FakeStub()
    stub.manual = True
    remote = await connect(stub)
    await remote.resume()
    assert (await remote.interrupt()).signal == 2
    # A second interrupt finds it stopped and sends nothing.
    assert (await remote.interrupt()).signal == 2


async def test_a_watchpoint_stop_carries_its_address(connect: Connect) -> None:
    stub = FakeStub()
    remote = await connect(stub)
    stub.replies[b"Z2,1000,8"] = b"OK"
    await remote.insert_breakpoint("write", 0x1000, 8)
    stub.stops.append(b"T05thread:01;watch:1004;")
    await remote.resume()
    stop = await remote.wait_stop()
    assert (stop.reason, stop.address) == (StopReason.WATCH, 0x1004)


async def test_memory_is_read_in_chunks_and_refusals_name_the_place(connect: Connect) -> None:
    stub = FakeStub()
    remote = await connect(stub)
    chunk = 0x1000 // 2 - 8
    stub.replies[b"m1000,%x" % chunk] = b"ab" * chunk
    stub.replies[b"m%x,2" % (0x1000 + chunk)] = b"cdef"
    assert await remote.read_memory(0x1000, chunk + 2) == b"\xab" * chunk + b"\xcd\xef"
    stub.replies[b"m%x,2" % (0x1000 + chunk)] = b"E14"
    with pytest.raises(QemuRefused, match=hex(0x1000 + chunk)):
        await remote.read_memory(0x1000, chunk + 2)


async def test_monitor_returns_what_was_printed(connect: Connect) -> None:
    remote = await connect(FakeStub())
    assert await remote.monitor("info replay") == "instruction count = 0\r\n"


async def test_description_is_fetched_in_parts_with_its_includes(connect: Connect) -> None:
    stub = FakeStub()
    remote = await connect(stub)
    size = b"%x" % (0x1000 // 2 - 8)
    root = b'<target><xi:include href="a.xml"/></target>'
    feature = b'<feature name="f"><reg name="pc" bitsize="64"/></feature>'
    read = b"qXfer:features:read:%s:%x,%s"
    stub.replies[read % (b"target.xml", 0, size)] = b"l" + root
    stub.replies[read % (b"a.xml", 0, size)] = b"m" + feature[:20]
    stub.replies[read % (b"a.xml", 20, size)] = b"l" + feature[20:]
    assert await remote.target_description() == {"target.xml": root, "a.xml": feature}
    layout = await remote.register_layout(isa_for("aarch64"))
    assert layout.names == ("pc",)
    values = layout.decode(await remote.read_registers(), "little")
    assert values["pc"] == 0


async def test_a_stub_that_serves_descriptions_without_end_is_refused(connect: Connect) -> None:
    stub = FakeStub()
    remote = await connect(stub)
    stub.replies[b"qXfer"] = b"m" + b"x" * 2000
    with pytest.raises(QemuRefused, match="unreasonably large"):
        await remote.target_description()


async def test_a_late_reply_is_not_taken_for_the_next_one(connect: Connect) -> None:
    stub = FakeStub()
    remote = await connect(stub)
    stub.mute = True
    with pytest.raises(QemuTimeout, match="'g'"):
        await remote.read_registers(seconds=0.01)
    stub.mute = False
    stub.transport.write(encode(b"ff" * 8))
    assert position_of(await remote.read_registers()) == 0


async def test_a_step_that_does_not_end_in_time_is_waited_for_by_the_next_request(
    connect: Connect,
) -> None:
    stub = FakeStub()
    stub.manual = True
    remote = await connect(stub)
    with pytest.raises(QemuTimeout, match="stop the machine"):
        await remote.step(seconds=0.01)
    with pytest.raises(QemuTimeout, match="stop the machine"):
        await remote.read_registers(seconds=0.01)
    stub.stop()
    assert position_of(await remote.read_registers()) == 1


@pytest.mark.parametrize("seed", range(20))
async def test_cancelling_anywhere_leaves_the_link_in_step(connect: Connect, seed: int) -> None:
    rng = random.Random(seed)
    stub = FakeStub()
    remote = await connect(stub)
    for _ in range(30):
        actions: list[Callable[[], Coroutine[Any, Any, object]]] = [
            remote.step,
            remote.read_registers,
            lambda: remote.step_many(5),
            lambda: remote.monitor("info replay"),
        ]
        task = asyncio.create_task(rng.choice(actions)())
        for _ in range(rng.randrange(12)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
    # A cancelled step_many ends with the step under way, which the next request awaits.
    assert position_of(await remote.read_registers()) == stub.position
    assert await remote.monitor("info replay") == f"instruction count = {stub.position}\r\n"


@pytest.mark.parametrize("request_made", [b"g", b"s", b"qRcmd,696e666f207265706c6179"])
async def test_a_link_that_ends_is_named_at_once_and_ever_after(
    connect: Connect, request_made: bytes
) -> None:
    stub = FakeStub()
    remote = await connect(stub)
    stub.on_request = lambda request: stub.transport.abort() if request == request_made else None
    with pytest.raises(QemuDied, match="gdb link"):
        await remote.step_many(3)
    with pytest.raises(QemuDied, match="gdb link"):
        await remote.read_registers()
    await remote.close()


@pytest.mark.parametrize("noise", [b"$g#00", b"-", encode(b"OK")])
async def test_a_link_out_of_step_is_given_up(connect: Connect, noise: bytes) -> None:
    stub = FakeStub()
    remote = await connect(stub)
    stub.transport.write(noise)
    await stub.lost
    with pytest.raises(QemuDied, match="packet"):
        await remote.read_registers()


async def test_a_stop_that_qmp_caused_answers_nothing(connect: Connect) -> None:
    """QEMU before 8.1 reports every stop, whoever caused it."""
    stub = FakeStub()
    remote = await connect(stub)
    foreign = encode(b"T02thread:01;")
    stub.transport.write(foreign)
    assert position_of(await remote.read_registers()) == 0
    stub.transport.write(foreign * 2)
    assert (await remote.step()).is_plain_trap
    assert position_of(await remote.read_registers()) == 1
    stub.transport.write(foreign)
    steps = await remote.step_many(3)
    assert [position_of(packet) for packet in steps.registers] == [2, 3, 4]
    assert steps.stop.is_plain_trap


async def test_nothing_listening_is_named(tmp_path: object) -> None:
    with pytest.raises(QemuDied, match="no gdb link"):
        await GdbRemote.connect(f"{tmp_path}/nobody")


async def test_a_stop_nobody_caused_is_the_one_at_connecting(connect: Connect) -> None:
    remote = await connect(FakeStub())
    assert (await remote.wait_stop()).is_plain_trap
