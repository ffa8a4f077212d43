"""Test files of other people, run as programs and under pytest, in folders like QEMU's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.qemu_test.running import run_file, write_tests

KINDS = """
import unittest
from qemu_test import QemuBaseTest

class Kinds(QemuBaseTest):
    def test_a_passes(self):
        print("printed by the test")
    def test_b_fails(self):
        self.fail("because of this")
    def test_c_errors(self):
        raise ValueError("because of that")
    def test_d_skips(self):
        self.skipTest("no # need\\nat all")
    @unittest.expectedFailure
    def test_e_is_known_to_fail(self):
        self.fail()
    @unittest.expectedFailure
    def test_f_is_wrongly_known_to_fail(self):
        pass
    def test_g_subtests(self):
        for number in range(3):
            with self.subTest(number=number):
                self.assertNotEqual(number, 1)
"""

FOLDERS = """
import os
from pathlib import Path
from qemu_test import BUILD_DIR, QemuBaseTest
from helper import VALUE

class Folders(QemuBaseTest):
    def test(self):
        self.assertEqual(VALUE, 1)
        self.assertEqual(Path.cwd(), BUILD_DIR)
        self.assertEqual(self.arch, "x86_64")
        self.assertTrue(os.access("scripts/replay-dump.py", os.X_OK))
        self.assertTrue(Path(self.data_file("helper.py")).exists())
        self.assertEqual(self.build_file("a", "b"), str(BUILD_DIR / "a" / "b"))
        self.assertEqual(self.plugin_file("libinsn"), "tests/tcg/plugins/libinsn.so")
        own = BUILD_DIR / "tests/functional/x86_64/test_folders.Folders.test"
        self.assertEqual(self.outputdir, str(own))
        self.assertEqual(self.workdir, self.scratch_file())
        self.assertEqual(self.log_filename, self.log_file("base.log"))
        Path(self.scratch_file("left")).write_text("x")
        self.log.info("logged")
        with self.socket_dir() as folder:
            self.assertIn("qemu_func_test_sock_", folder)
"""

needs_qemu = pytest.mark.skipif(
    shutil.which("qemu-system-x86_64") is None, reason="no qemu-system-x86_64"
)
pytestmark = [pytest.mark.qemu, needs_qemu]


def tree(folder: Path) -> Path:
    """Return a folder like QEMU's `tests/functional`, with a helper module in it."""
    functional = folder / "functional"
    functional.mkdir()
    (functional / "helper.py").write_text("VALUE = 1\n")
    return functional


def test_every_result_in_tap(tmp_path: Path) -> None:
    tap = run_file(write_tests(tmp_path / "x86_64" / "test_kinds.py", KINDS), cwd=tmp_path)
    assert tap.status == 1
    name = "test_kinds.Kinds.test"
    assert tap.results == (
        f"ok 1 {name}_a_passes",
        f"not ok 2 {name}_b_fails",
        f"not ok 3 {name}_c_errors",
        f"ok 4 {name}_d_skips # SKIP no # need at all",
        f"not ok 5 {name}_e_is_known_to_fail # TODO it is known to fail",
        f"not ok 6 {name}_f_is_wrongly_known_to_fail",
        f"not ok 7 {name}_g_subtests (number=1)",
    )
    assert "printed by the test" in tap.errors
    assert "because of this" in tap.errors
    assert f"{name}_b_fails/base.log" in tap.errors


def test_one_test_of_a_file(tmp_path: Path) -> None:
    file = write_tests(tmp_path / "x86_64" / "test_kinds.py", KINDS)
    tap = run_file(file, "-k", "passes", cwd=tmp_path)
    assert (tap.status, len(tap.results)) == (0, 1)


@pytest.mark.parametrize("module", [False, True])
def test_folders_and_helpers(tmp_path: Path, module: bool) -> None:
    file = write_tests(tree(tmp_path) / "x86_64" / "test_folders.py", FOLDERS)
    tap = run_file(file, cwd=tmp_path, module=module)
    assert tap.status == 0, tap.errors
    outputs = tmp_path / "qemu-test" / "tests" / "functional" / "x86_64"
    assert "logged" in (outputs / "test_folders.Folders.test" / "base.log").read_text()
    assert not (outputs / "test_folders.Folders.test" / "scratch").exists()
    assert (tmp_path / "qemu-test" / ".gitignore").read_text() == "*\n"


def test_the_working_folder_is_kept_on_demand(tmp_path: Path) -> None:
    file = write_tests(tree(tmp_path) / "x86_64" / "test_folders.py", FOLDERS)
    build = tmp_path / "named"
    for variable in ("QEMU_BUILD_ROOT", "MESON_BUILD_ROOT"):
        tap = run_file(file, cwd=tmp_path, QEMU_TEST_KEEP_SCRATCH="1", **{variable: str(build)})
        assert tap.status == 0, tap.errors
        (left,) = build.rglob("left")
        assert left.parent.name == "scratch"
        shutil.rmtree(build)


def test_beside_another_qemu_test(tmp_path: Path) -> None:
    """As in QEMU's source tree, where the tests' folder holds QEMU's own package."""
    functional = tree(tmp_path)
    (functional / "qemu_test").mkdir()
    (functional / "qemu_test" / "__init__.py").write_text("raise ImportError('QEMU has this')")
    file = write_tests(functional / "test_x86_64_kinds.py", KINDS)
    tap = run_file(file, "-k", "passes", cwd=tmp_path, module=True)
    assert tap.status == 0, tap.errors


@pytest.mark.parametrize("words", [(), ("nonesuch.py",)])
def test_the_runner_says_what_it_wants(words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "qemu_test", *words], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Usage: python -m qemu_test FILE")


def test_under_pytest_in_parallel(tmp_path: Path) -> None:
    """Two runs of each test at once, by two workers: no clash of folders or ports."""
    text = """
from qemu_test import QemuSystemTest
from qemu_test.ports import Ports
from helper import VALUE

class Clash(QemuSystemTest):
"""
    text += "".join(
        f"""
    def test_{number}(self):
        self.set_machine("pc")
        self.vm.add_args("-net", "none")
        with Ports() as ports:
            self.vm.add_args("-gdb", f"tcp::{{ports.find_free_port()}}")
            self.vm.launch()
        self.assertEqual(self.vm.cmd("query-status")["status"], "running")
"""
        for number in range(4)
    )
    functional = tree(tmp_path)
    write_tests(functional / "x86_64" / "test_clash.py", text)
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-p", "qemu_test.pytest_plugin", "-n", "2"),
        *("-p", "no:cacheprovider", "--rootdir", tmp_path, functional / "x86_64"),
    ]
    runs = [
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for run in runs:
        output, _ = run.communicate(timeout=120)
        assert "4 passed" in output, output


@pytest.mark.parametrize("plugin", [(), ("-p", "qemu_test.pytest_plugin")])
def test_under_pytest(tmp_path: Path, plugin: tuple[str, ...]) -> None:
    file = write_tests(tree(tmp_path) / "x86_64" / "test_folders.py", FOLDERS)
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin, "--rootdir", tmp_path)
    done = subprocess.run(
        [sys.executable, *words, file], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert "1 passed" in done.stdout, done.stdout


def test_assets_fetched_beforehand(tmp_path: Path) -> None:
    text = """
from qemu_test import Asset, QemuBaseTest

class Assets(QemuBaseTest):
    ASSET_GONE = Asset("http://127.0.0.1:1/x", "0" * 64)
    def test_skips_because_it_cannot_be_had(self):
        self.ASSET_GONE.fetch()
"""
    file = write_tests(tmp_path / "x86_64" / "test_assets.py", text)
    cache = {"QEMU_TEST_CACHE_DIR": str(tmp_path / "cache")}
    stamp = tmp_path / "stamp"
    done = subprocess.run(
        [sys.executable, file],
        cwd=tmp_path,
        env={**os.environ, **cache, "QEMU_TEST_PRECACHE": str(stamp)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert float(stamp.read_text()) > 1e9
    assert "Unreachable" in done.stderr
    for allowed, words in (({}, "Unreachable"), ({"QEMU_TEST_NO_DOWNLOAD": "1"}, "NO_DOWNLOAD")):
        tap = run_file(file, cwd=tmp_path, **cache, **allowed)
        assert tap.status == 0
        (result,) = tap.results
        assert "# SKIP" in result
        assert words in result
