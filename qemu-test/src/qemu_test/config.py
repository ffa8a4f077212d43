"""Where tests put what they write: `BUILD_DIR`.

Under QEMU's own build that is the build directory. Elsewhere it is a folder `qemu-test` in
the current one, made when the first test starts, with the few files in it that tests
expect of a build directory.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

dso_suffix = ".so"


def _build_folder() -> Path:
    for variable in ("QEMU_BUILD_ROOT", "MESON_BUILD_ROOT"):
        if named := os.environ.get(variable):
            return Path(named).resolve()
    here = Path.cwd()
    return here if (here / "Makefile.mtest").exists() else here / "qemu-test"


BUILD_DIR = _build_folder()

_REPLAY_DUMP = f"""#!{sys.executable}
import sys

sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from qemu_test.replaydump import main

sys.exit(main())
"""


def prepare_build_folder() -> None:
    """Make BUILD_DIR what tests expect, leaving alone what is there.

    Replay tests run `./scripts/replay-dump.py` on their logs; QEMU's own is not installed
    with QEMU, so ours stands in for it.
    """
    # Several test processes may come here at once, and one may use it already.
    BUILD_DIR.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        BUILD_DIR.mkdir()
        (BUILD_DIR / ".gitignore").write_text("*\n")
    script = BUILD_DIR / "scripts" / "replay-dump.py"
    if not script.exists():
        script.parent.mkdir(exist_ok=True)
        draft = script.with_name(f".replay-dump.{os.getpid()}")
        draft.write_text(_REPLAY_DUMP)
        draft.chmod(0o755)
        draft.replace(script)
