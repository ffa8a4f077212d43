"""Tests of `qemu_test` and with it: QEMU's folders in a temporary place."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu_test import cmd, config, testcase
from qemu_test.layout import let_import_helpers

# So that files here can also be run as programs, as QEMU's own are.
let_import_helpers(Path(__file__))


@pytest.fixture(autouse=True)
def build_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """BUILD_DIR, and the place of cached assets, of this test's own."""
    folder = tmp_path_factory.mktemp("build")
    for module in (cmd, config, testcase):
        monkeypatch.setattr(module, "BUILD_DIR", folder)
    monkeypatch.setenv("QEMU_TEST_CACHE_DIR", str(folder / "cache"))
    return folder
