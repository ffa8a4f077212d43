"""The kinds of faults; each makes a trial from a number, the same for the same number."""

from __future__ import annotations

import dataclasses
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from random import Random

from tests.command import retrograde
from tests.faults import calls
from tests.faults.commands import COMMANDS, NEEDS_INDEX, WITH_GDB
from tests.faults.fault import ANY_FAILURE, NO_MEMORY, Fault, Trial
from tests.faults.place import Place, can_mount, files_below, in_cache
from tests.faults.processes import Running, Setting
from tests.faults.trial import Laboratory

Chosen = tuple[tuple[str, ...], bool, Fault]
"""The commands, whether there is a cache, and what befalls them."""

Maker = Callable[[Random, Laboratory], Chosen]

ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)

STOPPED_SECONDS = (0.5, 3.0)
"""How long a process is stopped for; at times as long as LONG_STOP."""
LONG_STOP = 20.0

READERS = tuple(name for name in COMMANDS if name not in ("record", "unpack"))
"""Commands that are asked of a recording, and use its cache where it helps."""


def _choose(rng: Random) -> tuple[str, bool]:
    """Choose a command and whether the recording has a cache."""
    name = rng.choice(list(COMMANDS))
    return name, name in NEEDS_INDEX or rng.random() < 0.5


def _kill(rng: Random, laboratory: Laboratory) -> Chosen:
    """Send a signal to one of the processes at some moment."""
    roles = {"us": list(COMMANDS), "gdb": sorted(WITH_GDB), "worker": ["index"]}
    machines = {"pack", "unpack", "info", "plot", "query", "query-output", "export", "diff"}
    roles["qemu"] = [one for one in COMMANDS if one not in machines]
    role = rng.choice(["us", "us", "qemu", "gdb", "worker"])
    command = rng.choice(roles[role])
    cache = role != "worker" and (command in NEEDS_INDEX or rng.random() < 0.5)
    number = rng.choice([signal.SIGKILL, *ENDING, signal.SIGSTOP])
    stopped = LONG_STOP if rng.random() < 0.05 else rng.uniform(*STOPPED_SECONDS)
    moment = rng.random() * laboratory.seconds(command, cache)

    def act(running: Running) -> bool:
        at = time.monotonic() + moment
        while running.process.poll() is None:
            if time.monotonic() < at or (role == "us" and not running.heeds()):
                pass
            elif found := running.find(role):
                return _send(found[0], number, stopped)
            time.sleep(0.005)
        return False

    words = f"{number.name} to {role} after {moment:.3f} s"
    if number is signal.SIGSTOP:
        return (command,), cache, Fault(f"{words} for {stopped:.1f} s", act=act)
    return (command,), cache, _signalled(words, role, command, number, act)


def _signalled(
    words: str, role: str, command: str, number: signal.Signals, act: Callable[[Running], bool]
) -> Fault:
    if role != "us":
        # gdb's own exit status is that of `debug`; what it told `serve`'s client is cut short.
        codes = ANY_FAILURE | ({1, 128 + number, 256 - number} if role == "gdb" else set())
        is_gdb = role == "gdb"
        return Fault(
            words,
            allowed=codes,
            act=act,
            shortens=True,
            may_be_silent=is_gdb,
            cuts_client=is_gdb,
        )
    kept = {0} if command in ("record", "serve") else set()
    return Fault(
        words,
        allowed={128 + number} | kept,
        act=act,
        killed=number if number is signal.SIGKILL else 0,
        shortens=number is not signal.SIGKILL,
    )


def _send(pid: int, number: signal.Signals, stopped: float) -> bool:
    try:
        os.kill(pid, number)
        if number is signal.SIGSTOP:
            time.sleep(stopped)
            os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        return False
    return True


def _space(rng: Random, laboratory: Laboratory) -> Chosen:
    """Let a folder be full after some bytes."""
    command, cache = _choose(rng)
    where = rng.choice(["out", "cache", "tmp", "output", "home"])
    pages = int(2 ** rng.uniform(0, 14))
    if where == "output":
        full = Fault("/dev/full as standard output", setting=lambda _: Setting(stdout="/dev/full"))
        return (command,), cache, full

    def folder(place: Place) -> Path:
        inside = {"out": place.out, "tmp": place.tmp, "home": place.root / "home"}
        return inside.get(where, place.recording / "cache")

    def mount(place: Place) -> None:
        path = folder(place)
        path.mkdir(exist_ok=True)
        contents = path.with_name("contents")
        path.rename(contents)
        path.mkdir()
        used = sum(-(-one.stat().st_size // 4096) for one in files_below(contents))
        # Directories take a page, too; so does the first of them.
        size = 4096 * (used + 64 + pages)
        _run("mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "none", path)
        _run("cp", "-a", f"{contents}/.", path)
        shutil.rmtree(contents)
        left = os.statvfs(path).f_bavail - pages
        if left > 0:
            size -= left * 4096
            _run("mount", "-o", f"remount,size={max(size, 4096)}", path)

    def enlarge(place: Place) -> None:
        if folder(place).is_mount():
            _run("mount", "-o", "remount,size=1G", folder(place))

    def setting(place: Place) -> Setting:
        return Setting({"XDG_CACHE_HOME": str(folder(place))} if where == "home" else {})

    fault = Fault(
        f"{pages * 4} kB free in {where}",
        allowed={3},
        setting=setting,
        prepare=mount,
        lift=enlarge,
    )
    return (command,), cache, fault


def _run(*words: str | Path) -> None:
    subprocess.run(list(map(str, words)), check=True, capture_output=True)


def _limited(
    rng: Random,
    what: int,
    words: str,
    most: int,
    allowed: set[int],
    ends: Collection[tuple[int, str]] = (),
) -> Chosen:
    command, cache = _choose(rng)
    fault = Fault(
        words, allowed=allowed, ends=ends, setting=lambda _: Setting(limits=[(what, most)])
    )
    return (command,), cache, fault


def _files(rng: Random, laboratory: Laboratory) -> Chosen:
    """Let no more than some files be open at a time."""
    del laboratory
    most = rng.randrange(12, 80)
    return _limited(rng, resource.RLIMIT_NOFILE, f"{most} open files at most", most, {3})


def _memory(rng: Random, laboratory: Laboratory) -> Chosen:
    """Let no more than some memory be had."""
    del laboratory
    most = int(2 ** rng.uniform(6.5, 11.5)) << 20
    return _limited(
        rng, resource.RLIMIT_AS, f"{most >> 20} MiB of addresses at most", most, {3, 4}, NO_MEMORY
    )


def _damage(rng: Random, laboratory: Laboratory, *, cut: bool) -> Chosen:
    command = rng.choice([*READERS, "unpack"])
    which, where, bit = rng.random(), rng.random(), rng.randrange(8)
    of_cache = command != "unpack" and rng.random() < 0.7
    chosen: list[str] = []

    def damage(place: Place) -> None:
        folder = place.recording
        files = [
            path
            for path in files_below(folder)
            if in_cache(str(path.relative_to(folder))) == of_cache and path.stat().st_size
        ]
        path = place.packed if command == "unpack" else files[int(which * len(files))]
        chosen.append(str(path.relative_to(place.root)))
        at = int(where * path.stat().st_size)
        if cut:
            os.truncate(path, at)
            return
        with path.open("r+b") as file:
            file.seek(at)
            (byte,) = file.read(1)
            file.seek(at)
            file.write(bytes([byte ^ 1 << bit]))

    def lift(place: Place) -> None:
        if not of_cache and place.root.exists():
            for one in chosen:
                laboratory.stock.restore(place, one)
        elif command in NEEDS_INDEX and place.root.exists():
            retrograde("index", "--jobs", "1", place.recording)  # as we are told to

    files = "cache" if of_cache else "archive" if command == "unpack" else "recording"
    words = "a file is cut" if cut else "a bit is flipped"
    fault = Fault(
        f"{words} in the {files}, file {which:.4f}, at {where:.4f}",
        # Rows that are lost are not done without: they take a replay.
        allowed={2} if not of_cache or command in NEEDS_INDEX else set(),
        prepare=damage,
        lift=lift,
    )
    return (command,), True, fault


def _flip(rng: Random, laboratory: Laboratory) -> Chosen:
    """Flip a bit of a file of the recording, the archive or the cache."""
    return _damage(rng, laboratory, cut=False)


def _cut(rng: Random, laboratory: Laboratory) -> Chosen:
    """Cut a file short."""
    return _damage(rng, laboratory, cut=True)


def _twice(rng: Random, laboratory: Laboratory) -> Chosen:
    """Have two commands at once on one recording."""
    del laboratory
    first = rng.choice(list(COMMANDS))
    second = first if rng.random() < 0.4 else rng.choice(list(COMMANDS))
    cache = bool({first, second} & NEEDS_INDEX) or rng.random() < 0.3
    if first == second == "serve":
        second = "debug"  # its client would talk to the other server
    same = {2} if (first == second and COMMANDS[first].makes) or first == "serve" else set()
    fault = Fault("at the same time", allowed=same)
    return (first, second), cache, fault


def _call(rng: Random, laboratory: Laboratory) -> Chosen:
    """Let one system call or request fail, wherever."""
    command, cache = _choose(rng)
    kind = rng.choice([*calls.ERRORS, *calls.REQUESTS])
    counts = laboratory.counts(command, cache)
    number = rng.randrange(1, counts[kind] + 1) if counts[kind] else 1
    act = rng.choice(calls.ACTS) if kind in calls.REQUESTS else ""
    return (command,), cache, calls.fault(kind, number, act)


def _point(rng: Random, laboratory: Laboratory) -> Chosen:
    """Send ourselves a signal at some system call."""
    command, cache = _choose(rng)
    kind = rng.choice(["open", "write", "name", "fork", "space"])
    counts = laboratory.counts(command, cache)
    number = rng.randrange(1, counts[kind] + 1) if counts[kind] else 1
    sent = rng.choice([signal.SIGKILL, signal.SIGKILL, *ENDING])
    fault = _signalled(f"{sent.name} at {kind} {number}", "us", command, sent, lambda _: True)
    # Before it heeds them signals end a command as any program.
    fault = dataclasses.replace(fault, ends=[(-sent, "")])
    return (command,), cache, calls.at(fault, kind, number, sent=sent)


KINDS: Mapping[str, Maker] = {
    "kill": _kill,
    "point": _point,
    "space": _space,
    "files": _files,
    "memory": _memory,
    "flip": _flip,
    "cut": _cut,
    "twice": _twice,
    "call": _call,
}


def reasons_to_skip() -> dict[str, str]:
    """Return why kinds cannot be tried here, by kind."""
    reasons = {"space": can_mount()}
    reasons |= dict.fromkeys(("call", "point"), calls.why_not())
    return {kind: reason for kind, reason in reasons.items() if reason}


def kind_of(number: int) -> str:
    """Return the kind of the trial with this number."""
    return list(KINDS)[number % len(KINDS)]


def trial_of(number: int, laboratory: Laboratory) -> Trial:
    """Return the trial with this number."""
    kind = kind_of(number)
    commands, cache, fault = KINDS[kind](Random(number), laboratory)
    return Trial(str(number), kind, commands, cache, fault)
