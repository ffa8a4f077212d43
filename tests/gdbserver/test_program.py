"""The guest's program, read through the server a piece at a time, and nothing else."""

import struct

import pytest

from tests.gdbserver.client import Client, serving
from tests.gdbserver.faketimeline import FakeTimeline

CONTENT = bytes(range(256)) * 1000


def opening(path, flags=0):
    return f"vFile:open:{str(path).encode().hex()},{flags:x},0"


@pytest.fixture
async def client(tmp_path):
    (tmp_path / "program").write_bytes(CONTENT)
    async with serving(FakeTimeline(tmp_path), tmp_path) as path:
        client = await Client.connect(path)
        assert await client.ask("QStartNoAckMode") == "OK"
        yield client
        await client.close()


async def test_it_is_named(client, tmp_path):
    assert "qXfer:exec-file:read+" in (await client.ask("qSupported:")).split(";")
    assert await client.ask("qXfer:exec-file:read:1:0,1000") == f"l{tmp_path / 'program'}"
    assert await client.ask("qXfer:exec-file:read::1,3") == "m" + str(tmp_path)[1:4]


async def test_its_bytes_and_size(client, tmp_path):
    assert await client.ask("vFile:setfs:0") == "F0"
    assert await client.ask(opening(tmp_path / "program")) == "F3"
    length, _, stat = (await client.ask("vFile:fstat:3")).partition(";")
    assert length == "F40"
    assert struct.unpack_from(">Q", stat.encode("latin-1"), 28)[0] == len(CONTENT)
    data = b""
    while True:
        length, _, part = (await client.ask(f"vFile:pread:3,ffffff,{len(data):x}")).partition(";")
        assert int(length[1:], 16) == len(part)
        if not part:
            break
        data += part.encode("latin-1")
    assert data == CONTENT
    assert await client.ask("vFile:close:3") == "F0"
    assert await client.ask("vFile:pread:3,10,0") == "F-1,9"


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (opening("/etc/passwd"), "F-1,2"),
        (opening("program"), "F-1,2"),
        ("vFile:open:zz,0,0", "F-1,2"),
        ("vFile:open:", "F-1,16"),
        ("vFile:pread:3,10,0", "F-1,9"),
        ("vFile:pread:", "F-1,16"),
        ("vFile:close:4", "F-1,9"),
        ("vFile:unlink:2f", ""),
        ("vFile:", ""),
    ],
)
async def test_nothing_else_is_served(client, request_, answer):
    assert await client.ask(request_) == answer


async def test_it_is_not_written(client, tmp_path):
    assert await client.ask(opening(tmp_path / "program", flags=1)) == "F-1,1e"
    assert await client.ask(opening(tmp_path / "program", flags=0x200)) == "F-1,1e"
    assert (tmp_path / "program").read_bytes() == CONTENT


async def test_where_there_is_none(tmp_path):
    async with serving(FakeTimeline(tmp_path), tmp_path) as path:
        client = await Client.connect(path)
        assert await client.ask("QStartNoAckMode") == "OK"
        assert "exec-file" not in await client.ask("qSupported:")
        assert await client.ask("qXfer:exec-file:read::0,100") == ""
        assert await client.ask(opening("/")) == ""
        await client.close()
