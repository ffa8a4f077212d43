"""The commands that are disturbed, and what a right answer of each is."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrograde.recording.bundle import Recording
from tests.command import Done
from tests.faults.place import Place
from tests.hostile import fingerprint

Words = Sequence[str | Path]
Answer = Callable[[Place, Done], object]

GDB_SCRIPT = (
    "set pagination off\n"
    "x/2gx {address:#x}\n"
    "reverse-stepi 3\n"
    "stepi 2\n"
    "info registers rip\n"
    "reverse-continue\n"
    "info registers rip\n"
)
"""gdb ends a script at its first error."""

RECORDED = "new.retro"
"""What is recorded anew."""

MIDDLE = "50%"
"""Where debuggers begin."""

TABLES = ("calls", "console", "context", "events", "exceptions", "interrupts")
"""Tables whose rows do not depend on how the work was divided.

Of a call it is known within one interval alone how deep it is and where it returns.
"""


@dataclass(frozen=True)
class Command:
    """A command line, and its answer. `makes` is the name of what it makes in `out`.

    `client` talks to a command that waits for one, and returns what it heard.
    """

    name: str
    words: Callable[[Place], Words]
    answer: Answer
    makes: str = ""
    client: Callable[[Place, subprocess.Popen[bytes], Mapping[str, str]], bytes] | None = None


def _said(place: Place, done: Done) -> object:
    del place
    return done.stdout


def _document(*left_out: str) -> Answer:
    """Return what compares a JSON document, without what tells of the work."""

    def answer(place: Place, done: Done) -> object:
        del place
        try:
            document = json.loads(done.stdout)
        except ValueError:
            return done.stdout
        return {key: value for key, value in document.items() if key not in left_out}

    return answer


def _file(name: str) -> Answer:
    return lambda place, _: hashlib.sha256((place.out / name).read_bytes()).hexdigest()


def _recorded(place: Place, done: Done) -> object:
    del done
    recording = Recording.open(place.out / RECORDED)
    recording.check_digests()
    return recording.complete, recording.console_bytes()


def _unpacked(place: Place, done: Done) -> object:
    del done
    return fingerprint(place.out / "u.retro")


def tables(place: Place, done: Done) -> object:
    """Return how many rows tables have, and a sum over all that is in them."""
    del done
    import duckdb

    found = {}
    for table in TABLES:
        files = place.recording / "cache" / "index" / table / "*.parquet"
        columns = "count(*), sum(hash(COLUMNS(lambda c: c NOT IN ('depth', 'return_position'))))"
        query = f"SELECT {columns} FROM read_parquet('{files}')"
        try:
            with duckdb.connect() as database:
                found[table] = database.execute(query).fetchall()
        except duckdb.IOException:
            found[table] = []
    return found


def gdb_script(place: Place) -> Path:
    """Write what gdb is to do, and return where."""
    path = place.root / "script.gdb"
    path.write_text(GDB_SCRIPT.format(address=place.address))
    return path


def _debug(place: Place) -> Words:
    script = str(gdb_script(place))
    return ("debug", "--at", MIDDLE, place.recording, "--", "-nx", "-batch", "-x", script)


def _from_gdb(place: Place, done: Done) -> object:
    """Return the lines in which gdb answered; the others are about its start and end."""
    del place
    return [line for line in done.stdout.splitlines() if line.startswith((b"0x", b"rip"))]


def _attach(place: Place, server: subprocess.Popen[bytes], environment: Mapping[str, str]) -> bytes:
    """Have gdb ask the server, and end it then."""
    path = place.out / "s"
    while not path.exists() and server.poll() is None:
        time.sleep(0.01)
    arguments = ["-nx", "-batch", "-ex", f"target remote {path}", "-x", str(gdb_script(place))]
    done = subprocess.run(["gdb", *arguments], capture_output=True, env=environment)
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
    return done.stdout


_SQL = "SELECT position, target, depth FROM calls ORDER BY position LIMIT 500"

COMMANDS: Mapping[str, Command] = {
    one.name: one
    for one in (
        Command(
            "record",
            lambda at: ("record", "-o", at.out / RECORDED, "--", *at.guest),
            _recorded,
            makes=RECORDED,
        ),
        Command(
            "info",
            lambda at: ("info", "--json", at.recording),
            _document("checkpoints", "recording"),
        ),
        Command(
            "plot",
            lambda at: ("info", "--plot", at.out / "x.svg", at.recording),
            _file("x.svg"),
            makes="x.svg",
        ),
        Command("replay", lambda at: ("replay", at.recording), _said),
        Command("verify", lambda at: ("verify", "--json", at.recording), _document("cache")),
        Command(
            "verify-random",
            lambda at: ("verify", "--random", "1", "--seed", "7", "--json", at.recording),
            _document("checkpoints", "cache"),
        ),
        Command("debug", _debug, _from_gdb),
        Command(
            "serve",
            lambda at: ("serve", "--at", MIDDLE, "--gdb", at.out / "s", at.recording),
            _from_gdb,
            client=_attach,
        ),
        Command("index", lambda at: ("index", "--jobs", "2", at.recording), tables),
        Command("query", lambda at: ("query", "--json", at.recording, _SQL), _said),
        Command(
            "query-output",
            lambda at: ("query", "-o", at.out / "q.csv", at.recording, _SQL),
            _file("q.csv"),
            makes="q.csv",
        ),
        Command(
            "last-write",
            lambda at: ("last-write", "--json", at.recording, f"{at.address:#x}:8"),
            _said,
        ),
        Command(
            "origin", lambda at: ("origin", "--json", at.recording, f"{at.address:#x}:8"), _said
        ),
        Command(
            "export",
            lambda at: ("export", "--perfetto", at.out / "x.json", at.recording),
            _file("x.json"),
            makes="x.json",
        ),
        Command("diff", lambda at: ("diff", "--json", at.recording, at.other), _said),
        Command(
            "pack",
            lambda at: ("pack", at.recording, "-o", at.out / "p.tar.zst"),
            _file("p.tar.zst"),
            makes="p.tar.zst",
        ),
        Command(
            "unpack",
            lambda at: ("unpack", at.packed, "-o", at.out / "u.retro"),
            _unpacked,
            makes="u.retro",
        ),
    )
}

WITH_GDB = frozenset(("verify", "verify-random", "debug", "serve"))

NEEDS_INDEX = frozenset(("query", "query-output", "plot", "export"))
"""Commands whose answer is another without an index."""


def remove_made(place: Place, command: Command) -> None:
    """Remove what a command made, so that it can make it again."""
    if not command.makes:
        return
    path = place.out / command.makes
    if path.is_dir():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()
