"""What QEMU is installed and what it can do: asked of the binary, never guessed."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from retrograde.asking import ask
from retrograde.errors import EnvironmentLacks

OLDEST = (7, 2)
"""The oldest QEMU that retrograde is tested with (Debian 12's own)."""

ASK_SECONDS = 20.0

_PREFIX = "qemu-system-"

_PACKAGES = {
    "x86_64": "qemu-system-x86",
    "i386": "qemu-system-x86",
    "aarch64": "qemu-system-arm",
    "arm": "qemu-system-arm",
    "sparc": "qemu-system-sparc",
    "sparc64": "qemu-system-sparc",
    "ppc": "qemu-system-ppc",
    "ppc64": "qemu-system-ppc",
    "mips": "qemu-system-mips",
    "mipsel": "qemu-system-mips",
    "mips64": "qemu-system-mips",
    "mips64el": "qemu-system-mips",
}


@dataclass(frozen=True)
class MachineType:
    """One board QEMU offers: its name, its alias and the id of its RAM, if any.

    `most_vcpus` is how many processors it takes, `plugs_vcpus` whether they can be devices.
    """

    name: str
    alias: str
    ram_id: str
    is_default: bool
    most_vcpus: int = 1
    plugs_vcpus: bool = False


@dataclass(frozen=True)
class Qemu:
    """One installed `qemu-system-*`."""

    path: Path
    target: str
    version: tuple[int, int, int]
    full_version: str

    @classmethod
    def find(cls, target: str, program: str | None = None) -> Qemu:
        """Find QEMU for `target`: `program`, or `qemu-system-TARGET` on PATH.

        Raises EnvironmentLacks when it is missing, is not a QEMU, is too old, or was
        built without TCG.
        """
        name = program or f"qemu-system-{target}"
        found = shutil.which(name)
        if found is None:
            raise EnvironmentLacks(f"{name} is not installed.", install_hint(target))
        full_version, version = _ask_version(Path(found))
        if version[:2] < OLDEST:
            raise EnvironmentLacks(
                f"{name} is QEMU {_dotted(version)}, older than {_dotted(OLDEST)}.",
                "Install a newer one; 10.0 is recommended (Debian: bookworm-backports).",
            )
        qemu = cls(Path(found).resolve(), target, version, full_version)
        if "tcg" not in qemu.accelerators:
            raise EnvironmentLacks(
                f"{name} was built without TCG, the only accelerator that can record.",
                install_hint(target),
            )
        return qemu

    @functools.cached_property
    def accelerators(self) -> tuple[str, ...]:
        """Accelerators of this binary, from `-accel help`."""
        lines = _ask(self.path, "-M", "none", "-accel", "help").splitlines()
        return tuple(line.strip() for line in lines[1:] if line.strip())

    @functools.cached_property
    def help_text(self) -> str:
        """QEMU's own `-help`, which lists only the options this build has."""
        return _ask(self.path, "-help")

    @property
    def has_sandbox(self) -> bool:
        """Whether `-sandbox on` (seccomp) exists."""
        return "-sandbox on" in self.help_text

    @property
    def has_plugins(self) -> bool:
        """Whether TCG plugins can be loaded."""
        return "-plugin " in self.help_text

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the binary in hex."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @functools.cached_property
    def _told(self) -> tuple[tuple[MachineType, ...], int]:
        """All boards, and the version of rr logs: what a machine of no board can tell.

        The first comes from QMP's query-machines, the second from the header of the log it
        leaves. One run of QEMU for both.
        """
        script = '{"execute":"qmp_capabilities"}{"execute":"query-machines"}{"execute":"quit"}'
        words = ("-M", "none", "-nodefaults", "-display", "none", "-qmp", "stdio")
        log = os.memfd_create("rr-log")
        try:
            record = ("-icount", f"shift=0,rr=record,rrfile=/proc/self/fd/{log}")
            answers = _ask(self.path, *words, *record, stdin=script, pass_fds=(log,))
            version = int.from_bytes(os.pread(log, 4, 0), "big")
        finally:
            os.close(log)
        for line in answers.splitlines():
            answer = json.loads(line).get("return")
            if isinstance(answer, list):
                boards = tuple(
                    MachineType(
                        m["name"],
                        m.get("alias", ""),
                        m.get("default-ram-id", ""),
                        m.get("is-default", False),
                        m.get("cpu-max", 1),
                        m.get("hotpluggable-cpus", False),
                    )
                    for m in answer
                )
                return boards, version
        raise EnvironmentLacks(f"{self.path.name} does not list its machines over QMP.")

    @property
    def machine_types(self) -> tuple[MachineType, ...]:
        """All boards (QMP query-machines)."""
        return self._told[0]

    @property
    def log_version(self) -> int:
        """The version of the rr logs this QEMU writes (REPLAY_VERSION in replay/replay.c)."""
        return self._told[1]

    @property
    def default_board(self) -> str:
        """Name of the board QEMU takes without -machine, "" when it has no default."""
        return next((m.name for m in self.machine_types if m.is_default), "")

    def machine_type(self, name: str) -> MachineType | None:
        """Return the board called `name` (or having it as alias); None when absent."""
        return next((m for m in self.machine_types if name in (m.name, m.alias)), None)

    @functools.lru_cache(maxsize=8)  # noqa: B019 - a handful of frozen objects a process
    def machine_properties(self, machine: str) -> frozenset[str]:
        """Names of the properties `-M machine,help` lists."""
        text = _ask(self.path, "-M", f"{machine},help")
        return frozenset(re.findall(r"^\s+([\w.-]+)=<", text, re.MULTILINE))

    @functools.lru_cache(maxsize=8)  # noqa: B019 - a handful of frozen objects a process
    def saved_fields(self, device: str) -> frozenset[str]:
        """Names of the fields of a device model that snapshots hold, from -dump-vmstate.

        Empty for a model that has no snapshots of its own.
        """
        words = ("-M", "none", "-display", "none", "-dump-vmstate", "/dev/stdout")
        try:
            described = json.loads(_ask(self.path, *words)).get(device, {})
        except json.JSONDecodeError:
            return frozenset()
        fields = described.get("Description", {}).get("Fields", [])
        return frozenset(field["field"] for field in fields)

    def default_ram_bytes(self, machine: str) -> int:
        """Return the RAM size the board has without `-m`, in bytes."""
        script = (
            '{"execute":"qmp_capabilities"}{"execute":"query-memory-size-summary"}'
            '{"execute":"quit"}'
        )
        words = ("-M", machine, "-S", "-accel", "tcg", "-display", "none", "-qmp", "stdio")
        quiet = ("-serial", "null", "-net", "none", "-monitor", "none")
        for line in _ask(self.path, *words, *quiet, stdin=script).splitlines():
            answer = json.loads(line).get("return", {})
            if isinstance(answer, dict) and "base-memory" in answer:
                return int(answer["base-memory"])
        raise EnvironmentLacks(f"{self.path.name} does not tell the RAM size of {machine}.")


def install_hint(target: str) -> str:
    """Return the sentence that says how to get QEMU for `target` on Debian and Ubuntu."""
    package = _PACKAGES.get(target, "qemu-system-misc")
    return f"Install it: apt-get install --no-install-recommends {package} qemu-utils"


def installed_targets() -> tuple[str, ...]:
    """Return the targets of all `qemu-system-*` on PATH, sorted."""
    found = set()
    for folder in map(Path, os.get_exec_path()):
        # An entry of PATH may be missing, no folder, or not for us to look into.
        with contextlib.suppress(OSError):
            programs = (p for p in folder.iterdir() if p.name.startswith(_PREFIX))
            # qemu-system-amd64 and the like are links to the real ones.
            found |= {p.name.removeprefix(_PREFIX) for p in programs if not p.is_symlink()}
    return tuple(sorted(name for name in found if re.fullmatch(r"\w+", name)))


def _ask_version(path: Path) -> tuple[str, tuple[int, int, int]]:
    text = _ask(path, "--version").partition("\n")[0]
    match = re.fullmatch(r"QEMU emulator version ((\d+)\.(\d+)\.(\d+).*)", text)
    if not match:
        raise EnvironmentLacks(
            f"{path} does not answer --version as a QEMU system emulator does.",
            "Name a qemu-system-* program.",
        )
    return match[1], (int(match[2]), int(match[3]), int(match[4]))


def _ask(path: Path, *words: str, stdin: str = "", pass_fds: tuple[int, ...] = ()) -> str:
    doing = f"answering {' '.join(words)}"
    return ask([path, *words], doing, seconds=ASK_SECONDS, stdin=stdin, pass_fds=pass_fds).stdout


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
