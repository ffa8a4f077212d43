"""What a QEMU program can do, as its own help tells."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

from retrograde.errors import EnvironmentLacks
from retrograde.isa.isa import isa_for

from .layout import host_target

ASK_SECONDS = 60.0
"""QEMU answers in 50 ms; this only ends what is no QEMU."""


class NotAnEmulator(Exception):
    """A program that was named as QEMU and is not; the text says what is wrong."""


class Emulator:
    """One `qemu-system-TARGET` or `qemu-TARGET`. Make it by `at`."""

    def __init__(self, path: str) -> None:
        self.path = path

    @classmethod
    def at(cls, path: str) -> Emulator:
        """Return the emulator `path`; raises NotAnEmulator when it does not say it is one."""
        file = Path(path)
        if not file.is_file():
            raise NotAnEmulator(f"{path} does not exist. Name an installed qemu-system-*.")
        if not os.access(file, os.X_OK):
            raise NotAnEmulator(f"{path} is not executable. Name an installed qemu-system-*.")
        return _checked(path, file.stat().st_mtime_ns)

    @property
    def arch(self) -> str:
        """Its target, the text after the last dash of its name."""
        return Path(self.path).name.rpartition("-")[2]

    @property
    def byte_order(self) -> str:
        """Byte order of its target at reset, `little` or `big`; little where not known."""
        try:
            return isa_for(self.arch).byte_order
        except EnvironmentLacks:
            return "little"

    @functools.cached_property
    def accelerators(self) -> tuple[str, ...]:
        """Accelerators it was built with."""
        return tuple(self._ask("-accel", "help").split())

    @functools.cached_property
    def machines(self) -> frozenset[str]:
        """Names and aliases of its machine types."""
        return self._first_words("-machine", "help")

    @functools.cached_property
    def netdevs(self) -> frozenset[str]:
        """Network back ends it was built with."""
        return self._first_words("-M", "none", "-netdev", "help")

    @functools.cached_property
    def devices(self) -> str:
        """Its list of devices; names and aliases are in double quotes."""
        return self._ask("-M", "none", "-device", "help")

    def _first_words(self, *words: str) -> frozenset[str]:
        lines = self._ask(*words).splitlines()
        return frozenset(line.split()[0] for line in lines if line.strip())

    def _ask(self, *words: str) -> str:
        return _run(self.path, *words)


@functools.lru_cache(maxsize=64)
def _checked(path: str, changed: int) -> Emulator:  # noqa: ARG001 - asks again after a rebuild
    words = _run(path, "--version").split()
    if words[1:2] == ["emulator"] and words[0] == "QEMU":
        return Emulator(path)
    # The user-mode ones say: qemu-arm version 10.0.2
    if words[:2] == [Path(path).name, "version"] and path.rpartition("/")[2].startswith("qemu-"):
        return Emulator(path)
    raise NotAnEmulator(
        f"{path} is not QEMU: its --version says {' '.join(words[:8])!r}. "
        "Name an installed qemu-system-*."
    )


def _run(path: str, *words: str) -> str:
    try:
        answer = subprocess.run(
            [path, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=ASK_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotAnEmulator(f"{path} {' '.join(words)} does not run: {error}.") from error
    return answer.stdout.decode(errors="replace")


def kvm_works(target: str | None = None) -> bool:
    """Whether KVM can be used here, for guests of `target` if given."""
    host = host_target()
    guests = {"x86_64": {"x86_64", "i386"}, "aarch64": {"aarch64", "arm"}}.get(host, {host})
    return (target is None or target in guests) and os.access("/dev/kvm", os.R_OK | os.W_OK)


def hvf_works() -> bool:
    """Whether macOS's hypervisor framework can be used here."""
    if sys.platform != "darwin":
        return False
    return _run("/usr/sbin/sysctl", "-n", "kern.hv_support").strip() == "1"
