"""Real lldb on our server. Debian 12's (14) goes forward only; `bs` is sent by hand."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tests.command import SECONDS, start

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(shutil.which("lldb") is None, reason="lldb is not installed"),
]


@pytest.mark.usefixtures("probe")
def test_lldb_attaches_steps_breaks_and_watches(recorded):
    recording = recorded()
    symbols = next(recording.path.glob("inputs/*.elf"))
    arguments = ("serve", recording.path, "--gdb", "localhost:0", "--at", "6_000_000")
    with start(*arguments, stderr=subprocess.PIPE) as server:
        try:
            said = server.stderr.readline()
            address = re.search(rb"localhost:\d+", said)[0].decode()
            commands = [
                f"target create {symbols}",
                f"gdb-remote {address}",
                "stepi",
                "watchpoint set expression -s 8 -w write -- 0x200100",
                "continue",
                "process plugin packet send bs",
                "process plugin packet monitor when",
                "watchpoint delete -f",
                "breakpoint set -n putc",
                "continue",
                "register read rip",
                "memory read 0x200100 0x200110",
                "register write rax 5",
            ]
            words = [word for line in commands for word in ("-o", line)]
            lldb = subprocess.run(
                ["lldb", "-x", "-b", *words], capture_output=True, text=True, timeout=SECONDS
            )
            assert "stop reason = instruction step into" in lldb.stdout
            assert "stop reason = watchpoint" in lldb.stdout
            assert "response: T05watch:200100;" in lldb.stdout
            assert "stop reason = breakpoint 1.1" in lldb.stdout
            assert "rip = 0x00000000001001e6" in lldb.stdout
            assert "0x00200100: " in lldb.stdout
            assert "Failed to write register" in lldb.stdout + lldb.stderr
        finally:
            server.terminate()
            server.wait(SECONDS)
