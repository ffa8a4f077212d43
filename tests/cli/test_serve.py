"""`retrograde serve`: addresses, starting, ending."""

from __future__ import annotations

import re
import signal
import socket

import pytest

from tests.command import SECONDS, assert_error, retrograde, start

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
