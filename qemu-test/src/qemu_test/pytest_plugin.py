"""For pytest's `-p`: collect test files that lie where another `qemu_test` does.

As in QEMU's source tree. Others need it only when they import a helper module before
`qemu_test`, which finds helpers when it is imported.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from .layout import let_import_helpers


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> None:  # noqa: ARG001
    """Before a file that imports `qemu_test` is imported, make its helpers importable."""
    if file_path.suffix == ".py" and b"qemu_test" in file_path.read_bytes():
        let_import_helpers(file_path)
