"""What QEMU's build sets up for tests, filled in where no build does."""

from __future__ import annotations

import os
import shutil

from .layout import importing_test_file, let_import_helpers


def prepare() -> None:
    """Name a gdb in QEMU_TEST_GDB if there is one, and make the tests' helpers importable.

    Tests read that variable themselves. gdb-multiarch knows all architectures, so it is
    taken before gdb. A variable that is set is left as it is, empty meaning no gdb.
    """
    gdb = shutil.which("gdb-multiarch") or shutil.which("gdb")
    if os.environ.get("QEMU_TEST_GDB") == "":
        del os.environ["QEMU_TEST_GDB"]
    elif gdb is not None:
        os.environ.setdefault("QEMU_TEST_GDB", gdb)
    test_file = importing_test_file()
    if test_file is not None:
        let_import_helpers(test_file)
