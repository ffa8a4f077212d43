"""Hostile recordings, archives and caches: refused before QEMU starts, or proved harmless.

The proof is strace's: what programs were started, and what was opened, made and removed.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from retrograde.machine.probe.build import source_folder
from tests.command import RETROGRADE, Done, retrograde
from tests.faults import hostilefiles, hostilemanifests, judge
from tests.faults.hostilefiles import Spoil, victim_of
from tests.faults.judge import Verdict
from tests.faults.place import Place, Stock
from tests.hostile import fingerprint

REFUSED = frozenset((2, 3))

COMMANDS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "manifest": (("replay", "--force", "a.retro"),),
    "file": (("replay", "a.retro"), ("pack", "a.retro", "-o", "out/x.tar.zst")),
    "image": (("replay", "--force", "a.retro"),),
    "archive": (("unpack", "p.tar.zst", "-o", "out/u.retro"),),
    "cache": (
        ("info", "a.retro"),
        ("debug", "a.retro", "--", "-nx", "-batch", "-ex", "monitor bookmarks"),
        ("query", "a.retro", "SELECT count(*) FROM calls"),
        ("last-write", "a.retro", "0x200000:8"),
        ("index", "--jobs", "1", "a.retro"),
    ),
}
"""What is asked of each group, in the place's folder."""

_OPENED = re.compile(
    r"^\d+(?:<[^>]*>)? +(open|openat|creat|rename\w*|unlink\w*|mkdir\w*|rmdir|truncate|link\w*"
    r"|symlink\w*|execve|connect)\((.*)$"
)
_PATH = re.compile(r'"((?:[^"\\]|\\.)*)"')
_WRITES = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC")

_READABLE = (
    *("/usr", "/lib", "/etc/ld.so", "/etc/localtime", "/etc/gdb", "/etc/nsswitch.conf"),
    *("/proc", "/sys", "/dev", "/etc/python", "/etc/ssl", "/etc/inputrc", "/etc/terminfo"),
    *("/etc/qemu", "/etc/debuginfod", "/opt", "/bin", "/etc/alternatives"),
)
_WRITABLE = ("/dev/null", "/dev/fd/", "/dev/tty", "/dev/shm", "/dev/zero", "/proc/self")


@dataclass(frozen=True)
class Case:
    """What is spoiled, and whether it must be refused."""

    name: str
    group: str
    spoil: Spoil

    def __str__(self) -> str:
        return f"{self.group}: {self.name}"


def cases() -> Iterator[Case]:
    """Yield all of the corpus."""
    for group, those in (
        ("manifest", hostilemanifests.cases()),
        ("file", hostilefiles.own_files()),
        ("image", hostilefiles.images()),
        ("archive", hostilefiles.archives()),
        ("cache", hostilefiles.caches()),
    ):
        yield from (Case(name, group, spoil) for name, spoil in those)


def why_not() -> str:
    """Return why nothing can be proved here; empty where it can."""
    return "" if shutil.which("strace") else "strace is not installed"


def run(stock: Stock, case: Case) -> Verdict:
    """Have all commands of its group open a hostile case, and judge what they did."""
    place = stock.place(cache=case.group == "cache")
    verdict = Verdict(str(case), case.group)
    try:
        hostilefiles.prepare(place)
        case.spoil(place)
        before = fingerprint(victim_of(place))
        for words in COMMANDS[case.group]:
            done, trace = _traced(place, words)
            _judge(verdict, case, place, words[0], done)
            _judge_trace(verdict, case, place, words[0], trace)
        if fingerprint(victim_of(place)) != before:
            verdict.add(judge.LOSS, "the victim is not what it was")
        for name in [*place.leftovers(), *place.made()]:
            verdict.add(judge.LEFTOVER, name)
    finally:
        place.remove()
    return verdict


def _traced(place: Place, words: tuple[str, ...]) -> tuple[Done, list[str]]:
    calls = "%file,connect,execve" if words[0] != "unpack" else "%file,connect"
    trace = place.root / "trace"
    strace = ("strace", "-f", "--seccomp-bpf", "-qq", "-s", "400", "-e", f"trace={calls}")
    done = retrograde(
        *words,
        prefix=(*strace, "-o", str(trace)),
        cwd=place.root,
        environment={"TMPDIR": str(place.tmp)},
        program=RETROGRADE,
    )
    return done, trace.read_text(errors="replace").splitlines()


def _judge(verdict: Verdict, case: Case, place: Place, command: str, done: Done) -> None:
    if "\x1b" in done.stderr or b"\x1b]" in done.stdout:
        verdict.add(judge.ANSWER, f"{command} passes escapes to a terminal: {done.stderr!r}")
    if case.group == "archive" and done.status == 0 and _is_what_was_packed(place):
        shutil.rmtree(place.out / "u.retro")  # what was spoiled is nothing that is unpacked
    elif case.group != "cache":
        judge.judge_end(verdict, done, allowed=REFUSED)
    elif done.status == 0:
        judge.judge_end(verdict, done, allowed={0})
    else:
        # That nothing wrote there is an answer, too; and what is not ours may be in the way.
        answers = {2, 1} if command == "last-write" else {2}
        judge.judge_end(verdict, done, allowed=answers)


def _is_what_was_packed(place: Place) -> bool:
    return fingerprint(place.out / "u.retro") == fingerprint(place.recording)


def _judge_trace(
    verdict: Verdict, case: Case, place: Place, command: str, trace: list[str]
) -> None:
    home = Path.home() / ".cache" / "retrograde"
    pythons = (*filter(None, sys.path), sys.prefix, sys.base_prefix)
    own = (str(place.root), str(source_folder()), *pythons, str(home))
    for line in trace:
        match = _OPENED.match(line)
        if not match or " = -1 " in line:
            continue
        call, rest = match[1], match[2]
        if call == "execve":
            if case.group != "cache" and "qemu-system" in rest and "rr=" in rest:
                verdict.add(judge.ANSWER, f"{command} started a machine: {line[:300]}")
            continue
        if call == "connect":
            if "AF_UNIX" not in rest:
                verdict.add(judge.ANSWER, f"{command} connected: {line[:300]}")
            continue
        writes = call not in ("open", "openat") or _WRITES.search(rest)
        for path in _PATH.findall(rest):
            if not path.startswith("/"):
                continue  # relative to a folder that was opened before
            inside = path.startswith(own) or path in own
            if path.startswith(str(victim_of(place))):
                verdict.add(judge.ANSWER, f"{command} opened the victim: {line[:300]}")
            elif writes and not inside and not path.startswith(_WRITABLE):
                verdict.add(judge.ANSWER, f"{command} wrote elsewhere: {line[:300]}")
            elif not inside and not path.startswith(_READABLE):
                verdict.add(judge.ANSWER, f"{command} opened another file: {line[:300]}")
