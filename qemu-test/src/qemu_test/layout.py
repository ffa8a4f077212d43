"""Where a test file lies tells what it needs: its target, its helpers, its data.

QEMU's tests lie in `tests/functional/TARGET/test_NAME.py` (10.1 and later) or in
`tests/functional/test_TARGET_NAME.py` (before), and import modules of `tests/functional`
by their bare names (`reverse_debugging`, `replay_kernel`).
"""

from __future__ import annotations

import platform
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType

_COMMON_FOLDER = "generic"
_TARGETS = (
    *("aarch64", "alpha", "arm", "avr", "hexagon", "hppa", "i386", "loongarch64", "m68k"),
    *("microblaze", "microblazeel", "mips", "mips64", "mips64el", "mipsel", "or1k", "ppc"),
    *("ppc64", "riscv32", "riscv64", "rx", "s390x", "sh4", "sh4eb", "sparc", "sparc64"),
    *("tricore", "x86_64", "xtensa", "xtensaeb"),
)
_HOSTS = {"arm64": "aarch64", "amd64": "x86_64", "i686": "i386", "ppc64le": "ppc64"}


def functional_folder(test_file: Path) -> Path:
    """Return the folder that is `tests/functional` to `test_file`.

    The file's own folder, or the one above when its own is called like a target.
    """
    folder = test_file.resolve().parent
    if folder.name in _TARGETS or folder.name == _COMMON_FOLDER:
        return folder.parent
    return folder


def let_import_helpers(test_file: Path) -> None:
    """Let `test_file` import what lies in its folder and in its `tests/functional`.

    They come last, so that a `qemu_test` lying there, as in QEMU's source tree, does not
    come before this one.
    """
    for folder in (test_file.resolve().parent, functional_folder(test_file)):
        if str(folder) not in sys.path:
            sys.path.append(str(folder))


def importing_test_file() -> Path | None:
    """Return the test file whose import led here, if one did."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if file.name.startswith("test_"):
            return file
        frame = frame.f_back
    return None


def target_named(names: Iterable[str]) -> str | None:
    """Return the target the first of `names` that has one in it speaks of."""
    return next((target for name in names if (target := _target_in(name))), None)


def host_target() -> str:
    """Return the target that is this machine's own architecture."""
    return _HOSTS.get(platform.machine(), platform.machine())


def emulator_for(test_file: Path, names: Iterable[str], *, user: bool) -> tuple[str, str | None]:
    """Return the name of the emulator a test speaks of, and its path if it is installed.

    The target is taken from the test's folder, file name or `names` (class and method),
    in this order; a test that names none is for this machine's own. A `user` test runs
    `qemu-TARGET`, others `qemu-system-TARGET`.
    """
    places = (test_file.resolve().parent.name, test_file.stem, *names)
    target = target_named(places) or host_target()
    program = f"qemu-{target}" if user else f"qemu-system-{target}"
    return program, shutil.which(program)


def _target_in(name: str) -> str | None:
    return max(_targets_in(name), key=len, default=None)


def _targets_in(name: str) -> Iterator[str]:
    # No word boundary: "_" counts as a letter there, and separates words here.
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    for target in _TARGETS:
        if re.search(rf"(?<![a-z0-9]){target}(?![a-z0-9])", spaced):
            yield target
