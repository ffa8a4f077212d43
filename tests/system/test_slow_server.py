"""Real debuggers on a server made slow on purpose: they show what they show on a fast one."""

from __future__ import annotations

import asyncio
import shutil

import pytest

from retrograde.gdbserver.lifesigns import LifeSigns
from retrograde.gdbserver.session import Session
from retrograde.verify.gdbmi import GdbMi
from tests.system.gdbs import go, serving
from tests.system.lldbs import BY_HAND, lldb

pytestmark = [pytest.mark.qemu, pytest.mark.gdb]

needs_gdb = pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")
needs_lldb = pytest.mark.skipif(shutil.which("lldb") is None, reason="lldb is not installed")

GDBS_OWN = 2
"""Seconds of `remotetimeout` in a gdb that nobody told otherwise."""

GIVES_UP = 6.5
"""Seconds after which such a gdb no longer waits: it tries three times."""


class Slowness:
    """Makes the server slow at the first request of each of some kinds."""

    def __init__(self, monkeypatch):
        self.kinds = {}
        answer = Session.answer

        async def slowly(session, request, progress):
            for kind, seconds in self.kinds.items():
                if request.startswith(kind):
                    del self.kinds[kind]  # what is left at the end was never asked
                    await asyncio.sleep(seconds)
                    break
            return await answer(session, request, progress)

        monkeypatch.setattr(Session, "answer", slowly)

    def begin(self, **kinds):
        """Be slow from now on; `kinds` are the seconds by how a request starts."""
        self.kinds = {kind.encode(): seconds for kind, seconds in kinds.items()}


@pytest.fixture
def slowness(monkeypatch):
    return Slowness(monkeypatch)


def gdb_shows(gdb):
    """Return what gdb shows when it asks for registers, memory, a step back and our words."""
    gdb.command("monitor seek 17_000_000")
    return [
        gdb.command("maintenance flush register-cache"),
        gdb.command("info registers rax rip"),
        gdb.command("x/2i $pc"),
        go(gdb, "reverse-stepi"),
        gdb.command("monitor when"),
        gdb.command("x/4gx $sp"),
        gdb.command("info registers rax rip"),
    ]


@needs_gdb
def test_gdb_with_the_time_out_it_comes_with(recorded, tmp_path, slowness):
    with serving(recorded(), tmp_path / "gdb"), GdbMi() as gdb:
        gdb.command(f"set remotetimeout {GDBS_OWN}")
        gdb.connect(tmp_path / "gdb")
        wanted = gdb_shows(gdb)
        slowness.begin(qRcmd=GIVES_UP, g=GIVES_UP, m=GIVES_UP, bs=GIVES_UP)
        assert gdb_shows(gdb) == wanted
        assert not slowness.kinds


@needs_gdb
def test_a_gdb_of_ours_needs_no_signs_of_life(recorded, tmp_path, slowness, monkeypatch):
    monkeypatch.setattr(LifeSigns, "start", lambda _signs: None)
    with serving(recorded(), tmp_path / "gdb"), GdbMi() as gdb:
        gdb.connect(tmp_path / "gdb")
        wanted = gdb_shows(gdb)
        slowness.begin(qRcmd=GIVES_UP, m=GIVES_UP)
        assert gdb_shows(gdb) == wanted
        assert not slowness.kinds


@needs_lldb
def test_lldb(recorded, tmp_path, slowness):
    """It gives up after four times its time-out; monitor commands may take longer."""
    connect = f"process connect unix-connect://{tmp_path}/gdb"
    script = (
        "settings set plugin.process.gdb-remote.packet-timeout 2",
        connect,
        f"{BY_HAND} monitor seek 17_000_000",
        "process detach",  # it does not know that it was moved, unless it comes anew
        connect,
        "stepi",
        "register read rax rip",
        "memory read 0x200100 0x200110",
        f"{BY_HAND} monitor when",
    )
    with serving(recorded(), tmp_path / "gdb"):
        wanted = lldb(*script)[-4:]
        slowness.begin(**{"qRcmd": 9, "vCont;": 9, "p": 3, "x": 3})
        assert lldb(*script)[-4:] == wanted
        assert not slowness.kinds
