"""`retrograde serve`: addresses, starting, ending."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import struct

import pytest

from retrograde.wire.rsp import encode
from tests.command import SECONDS, assert_error, retrograde, start
from tests.verify.test_deaths import children

pytestmark = pytest.mark.qemu


def test_addresses_others_can_reach_are_refused(recorded):
    path = recorded().path
    for address in ("0.0.0.0:0", "[::]:0", "192.0.2.1:1234"):
        assert_error(retrograde("serve", path, "--gdb", address), 2, "--expose", "ssh -L")


def test_what_is_no_address(recorded):
    assert_error(retrograde("serve", recorded().path, "--gdb", "nonsense"), 2, "HOST:PORT")


def test_a_path_that_is_taken(recorded, tmp_path):
    (tmp_path / "gdb").write_text("mine")
    assert_error(retrograde("serve", recorded().path, "--gdb", tmp_path / "gdb"), 2, "already")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_serves_until_it_is_told_to_end(recorded, number):
    with start(
        "serve", recorded().path, "--gdb", "localhost:0", "--at", "50%", stderr=-1
    ) as server:
        try:
            said = server.stderr.readline()
            if b"without the probe" in said:  # QEMU before 10.0
                said = server.stderr.readline()
            port = int(re.search(rb"target remote localhost:(\d+)", said)[1])
            assert (
                f"process connect connect://localhost:{port}'" in server.stderr.readline().decode()
            )
            with socket.create_connection(("localhost", port)) as client:
                client.sendall(b"$qC#b4")
                client.settimeout(SECONDS)
                received = b""
                while b"#" not in received:
                    received += client.recv(100)
                assert received.startswith(b"+$QC1#")
                server.send_signal(number)
                assert server.wait(SECONDS) == 0
            assert server.stderr.read() == b""
        finally:
            server.kill()


def reset(client):
    """Leave as a client does that is killed, or whose machine is switched off: by RST."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def ask(client, request):
    """Return the answer to a packet, after what was acknowledged."""
    client.sendall(encode(request))
    received = b""
    while not (found := re.search(rb"\$([^#]*)#..", received)):
        data = client.recv(1 << 16)
        assert data, received
        received += data
    return found[1]


@contextlib.contextmanager
def served(recording):
    """Serve `recording` in the middle; yields the process and its port, and ends it."""
    words = ("serve", recording.path, "--gdb", "localhost:0", "--at", "50%")
    with start(*words, stderr=-1) as server:
        try:
            said = b""
            while b"process connect" not in said:
                line = server.stderr.readline()
                assert line, said
                said += line
            port = int(re.search(rb"target remote localhost:(\d+)", said)[1])
            yield server, port
            server.send_signal(signal.SIGINT)
            assert server.wait(SECONDS) == 0
        finally:
            server.kill()


LEAVING = {
    "nothing": b"",
    "half a packet": b"+$qSupp",
    "answers unread": encode(b"?") * 200 + encode(b"m1000,8000") * 200,
    "a request": encode(b"c"),
    "garbage": b"\x03$}#" * 5000 + b"-" * 5000,
}


def test_no_client_leaves_noise_behind(recorded):
    """However they leave, in the middle of what: stderr says nothing, and the next is served."""
    with served(recorded()) as (server, port):
        for leave in (reset, socket.socket.close):
            for said in LEAVING.values():
                client = socket.create_connection(("localhost", port), SECONDS)
                client.sendall(said)
                leave(client)
        with socket.create_connection(("localhost", port), SECONDS) as client:
            while (answer := ask(client, b"qC")) != b"QC1":  # those before have to end first
                assert answer.startswith(b"E.Another debugger")
                client.close()
                client = socket.create_connection(("localhost", port), SECONDS)
            reset(client)
        server.send_signal(signal.SIGINT)
        noise = server.stderr.read().decode().splitlines()
        assert [line for line in noise if "a second client was sent away" not in line] == []


def test_a_qemu_that_dies_while_nobody_asks_is_replaced(recorded):
    with served(recorded()) as (server, port):
        with socket.create_connection(("localhost", port), SECONDS) as client:
            before = ask(client, b"g"), ask(client, b"m100000,40")
            for _ in range(2):
                killed = children(server.pid, "qemu-system")
                assert killed
                for qemu in killed:
                    os.kill(qemu, signal.SIGKILL)
                assert (ask(client, b"g"), ask(client, b"m100000,40")) == before
                ask(client, b"s")
                ask(client, b"bs")
                assert (ask(client, b"g"), ask(client, b"m100000,40")) == before
        server.send_signal(signal.SIGINT)
        assert server.stderr.read() == b""
