"""Run a program that can change no file but those named: `python confine.py FD,FD PROGRAM ...`.

For QEMUs whose guests may ask for the host's files by semihosting, which no option of QEMU
forbids. The kernel's Landlock does (landlock(7), since Linux 5.13): what this process and those
it starts may still write are the files behind those of the descriptors that can write, and
memory files. Reading stays as it is. It is a program of its own, and imports little,
because it stands between us and QEMU: Python that runs between fork and exec is not safe beside
threads.

The numbers are those of linux/landlock.h, system calls are the same on all architectures.
"""

import ctypes
import fcntl
import os
import stat
import struct
import sys

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
VERSION = 1
"""Flag of CREATE_RULESET: answer what the kernel knows."""
PATH_BENEATH = 1
NO_NEW_PRIVS = 38

WRITE, TRUNCATE = 1 << 1, 1 << 14
CHANGES = (WRITE | 0x1FF0, 0x2000, TRUNCATE)
"""What changes files, by the version from which the kernel can forbid it."""


def version() -> int:
    """Return the version of Landlock in this kernel, 0 for none."""
    return max(0, _call(CREATE_RULESET, None, 0, VERSION))


def restrict(descriptors: list[int]) -> None:
    """Confine this process for good. Raises OSError where the kernel does not let us."""
    forbidden = 0
    for rights in CHANGES[: version()]:
        forbidden |= rights
    rules = _done(CREATE_RULESET, struct.pack("=Q", forbidden), 8, 0)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (nowhere, *filter(_is_written, descriptors)):
        rule = struct.pack("=Qi", forbidden & (WRITE | TRUNCATE), descriptor)
        _done(ADD_RULE, rules, PATH_BENEATH, rule, 0)
    _done_c("prctl", NO_NEW_PRIVS, 1, 0, 0, 0)
    _done(RESTRICT_SELF, rules, 0)
    os.close(rules)
    os.close(nowhere)


def _is_written(descriptor: int) -> bool:
    """Whether it is a file on a disk, open for writing. Memory files are always allowed."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return False
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        return False
    return not os.readlink(f"/proc/self/fd/{descriptor}").startswith("/memfd:")  # noqa: PTH115


def _call(number: int, *arguments: "int | bytes | None") -> int:
    library = ctypes.CDLL(None, use_errno=True)
    long_ones = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return int(library.syscall(ctypes.c_long(number), *long_ones))


def _done(number: int, *arguments: "int | bytes | None") -> int:
    result = _call(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _done_c(name: str, *arguments: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*map(ctypes.c_ulong, arguments)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    restrict([int(word) for word in sys.argv[1].split(",") if word])
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606
