"""A signal ends us, whatever a library makes of the exception it comes as."""

from __future__ import annotations

import signal
import sys

import pytest

from retrograde.cli import signals
from tests.command import assert_error, retrograde

SWALLOWED = (
    "import os, signal\n"
    "from retrograde.recording.bundle import Recording\n"
    "def open(path):\n"
    "    try:\n"
    "        os.kill(os.getpid(), signal.SIGTERM)\n"
    "    except BaseException:\n"
    "        raise RuntimeError('a library failed') from None\n"
    "Recording.open = open\n"
    "from retrograde.cli.main import main\n"
    "main()"
)


def test_what_a_library_makes_of_it() -> None:
    done = retrograde("info", "x.retro", program=(sys.executable, "-c", SWALLOWED))
    assert done.status == 128 + signal.SIGTERM, done.stderr
    assert done.stderr == "retrograde: Ended by SIGTERM.\n"


def test_what_duckdb_makes_of_ctrl_c() -> None:
    assert signals.is_behind(RuntimeError("Query interrupted"))
    assert not signals.is_behind(RuntimeError("anything else"))
    assert signals.leave() == signal.SIGINT


LOST = (
    "import os, signal, threading\n"
    "from retrograde.recording.bundle import Recording\n"
    "def open(path):\n"
    "    try:\n"
    "        os.kill(os.getpid(), signal.SIGTERM)\n"
    "    except BaseException:\n"
    "        pass\n"
    "    threading.Event().wait()\n"
    "Recording.open = open\n"
    "from retrograde.cli.main import main\n"
    "main()"
)


def test_one_that_was_lost_comes_again() -> None:
    done = retrograde("info", "x.retro", program=(sys.executable, "-c", LOST))
    assert done.status == 128 + signal.SIGTERM, done.stderr


def test_an_interrupt_while_work_is_handed_over() -> None:
    """It ends the work all the same: closing would wait for it without end."""
    duckdb = pytest.importorskip("duckdb")
    from concurrent.futures import Future, ThreadPoolExecutor

    from retrograde.index.database import Database

    class Interrupted(ThreadPoolExecutor):
        def submit(self, *args: object, **kwargs: object) -> Future[object]:  # type: ignore[override]
            future = super().submit(*args, **kwargs)  # type: ignore[arg-type]
            if args[0] is not int:
                raise KeyboardInterrupt
            return future

    database = object.__new__(Database)
    vars(database).update(_duckdb=duckdb, _thread=Interrupted(1))
    cursor = duckdb.connect().cursor()
    forever = "SELECT count(*) FROM range(1_000_000_000_000) a, range(1000) b"
    with pytest.raises(KeyboardInterrupt):
        database.do(cursor, lambda: cursor.execute(forever))
    database._thread.shutdown()


NO_LOOP = (
    "import asyncio, os, socket\n"
    "def none(*args):\n"
    "    raise OSError(24, os.strerror(24))\n"
    "from retrograde.cli import signals\n"
    "socket.socketpair = none\n"
    "async def work():\n"
    "    pass\n"
    "from retrograde.cli.main import guarded\n"
    "guarded(lambda: signals.run(work()))"
)


def test_no_descriptor_for_an_event_loop() -> None:
    """asyncio and its half-made loop have nothing to add."""
    done = retrograde("x", program=(sys.executable, "-c", NO_LOOP))
    assert_error(done, 3, "ulimit -n")
    assert len(done.stderr.splitlines()) == 2
