"""`python -m qemu_test FILE [TEST...]` runs a test file, wherever it lies.

Needed only for a file that has another `qemu_test` beside it, as in QEMU's source tree: run
as a program it would take that one.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from .layout import let_import_helpers


def main() -> None:
    """Run the file named on the command line as a program."""
    if len(sys.argv) < 2 or not Path(sys.argv[1]).is_file():
        sys.exit("Usage: python -m qemu_test FILE [TEST...]\nName a file with tests.")
    del sys.argv[0]
    let_import_helpers(Path(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")


main()
