"""The classes tests are made of."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
import uuid
from pathlib import Path
from typing import ClassVar

from . import archive as archives
from . import tap, uncompress
from .asset import Asset
from .config import BUILD_DIR, prepare_build_folder
from .emulator import Emulator, NotAnEmulator, hvf_works, kvm_works
from .gdb import GDB
from .layout import emulator_for, functional_folder
from .machine import QEMUMachine

_LOGGERS = ("qemu-test", "qemu.machine", "qemu.qmp")
_FORMAT = "%(asctime)s - %(levelname)s: %(name)s.%(funcName)s %(message)s"


class QemuBaseTest(unittest.TestCase):
    """A test of one QEMU program, with a folder to work in and a log.

    `qemu_bin` is the program, `arch` its target, `workdir` a folder for the test's files that
    goes away after it (unless QEMU_TEST_KEEP_SCRATCH is set), `outputdir` the folder with
    the logs, which stays, and `log` the logger to use.
    """

    qemu_bin: str
    arch: str
    outputdir: str
    workdir: str
    log_filename: str
    log: logging.Logger

    _runs_programs: ClassVar[bool] = False
    """Whether the test runs programs (qemu-TARGET), not machines (qemu-system-TARGET)."""

    def setUp(self) -> None:
        """Find QEMU, make the folders, start the log; skip when an asset cannot be had."""
        self.emulator = self._find_emulator()
        self.qemu_bin = self.emulator.path
        self.arch = self.emulator.arch
        self.addCleanup(setattr, GDB, "byte_order", GDB.byte_order)
        GDB.byte_order = self.emulator.byte_order
        prepare_build_folder()
        self._work_in_build_folder()
        self.outputdir = str(self._own_folder())
        self.workdir = str(Path(self.outputdir, "scratch"))
        shutil.rmtree(self.workdir, ignore_errors=True)
        Path(self.workdir).mkdir()
        self.log_filename = self.log_file("base.log")
        self.log = logging.getLogger("qemu-test")
        self._log_to(self.log_filename, *_LOGGERS)
        self.log.debug("QEMU: %s", self.qemu_bin)
        if not self.assets_available():
            self.skipTest("An asset is not cached, and QEMU_TEST_NO_DOWNLOAD is set")

    def tearDown(self) -> None:
        """Remove the working folder, unless QEMU_TEST_KEEP_SCRATCH is set."""
        if not os.environ.get("QEMU_TEST_KEEP_SCRATCH"):
            shutil.rmtree(self.workdir, ignore_errors=True)

    # Files.

    def uncompress(self, compressed: uncompress.Compressed, format: str | None = None) -> str:
        """Uncompress a file or Asset into the working folder; return the path.

        It is called like the original without its last extension. `format` is `xz`, `gz`,
        `zstd` or `bz2`, by default what the name tells.
        """
        kind = format or uncompress.guess_uncompress_format(compressed)
        target = self.scratch_file(Path(str(compressed)).stem)
        uncompress.uncompress(compressed, target, kind)
        return target

    def archive_extract(
        self,
        archive: archives.Archive,
        format: str | None = None,
        sub_dir: str | None = None,
        member: str | None = None,
    ) -> str | None:
        """Unpack an archive, or one member, into the working folder or its `sub_dir`.

        Returns the path of the member, None without one. `format` is `tar`, `zip`, `cpio` or
        `deb`, by default what the name tells.
        """
        folder = self.scratch_file(*([sub_dir] if sub_dir else []))
        archives.archive_extract(archive, folder, format, member)
        return str(Path(folder, member)) if member is not None else None

    def socket_dir(self) -> tempfile.TemporaryDirectory[str]:
        """Return a folder whose name is short enough for sockets; the same at every call."""
        if self._socket_dir is None:
            folder = tempfile.TemporaryDirectory(prefix="qemu_func_test_sock_")
            self._socket_dir = folder
            self.addCleanup(folder.cleanup)
        return self._socket_dir

    _socket_dir: tempfile.TemporaryDirectory[str] | None = None

    def data_file(self, *args: str) -> str:
        """Return the path of a file that comes with the tests, below `tests/functional`."""
        return str(functional_folder(self._test_file()).joinpath(*args))

    def build_file(self, *args: str) -> str:
        """Return the path of a file of the build folder."""
        return str(BUILD_DIR.joinpath(*args))

    def scratch_file(self, *args: str) -> str:
        """Return the path of a file in the working folder."""
        return str(Path(self.workdir, *args))

    def log_file(self, *args: str) -> str:
        """Return the path of a file in the folder of the logs."""
        return str(Path(self.outputdir, *args))

    def plugin_file(self, plugin_name: str) -> str:
        """Return the path of one of QEMU's own TCG plugins, relative to the build folder."""
        return str(Path("tests", "tcg", "plugins", f"{plugin_name}.so"))

    def assets_available(self) -> bool:
        """Whether all assets this class itself names are cached or may be downloaded."""
        named = ((n, v) for n, v in vars(type(self)).items() if n.startswith("ASSET_"))
        missing = [n for n, v in named if isinstance(v, Asset) and not v.available()]
        if missing:
            self.log.info("not available: %s", ", ".join(missing))
        return not missing

    @staticmethod
    def main() -> None:
        """Run the tests of the file that is run, print TAP, and exit: 0 if all went well.

        With QEMU_TEST_PRECACHE, the name of a file, only fetch the assets and write the time
        to that file.
        """
        test_file = Path(sys.argv[0])
        if stamp := os.environ.get("QEMU_TEST_PRECACHE"):
            Asset.precache_suites(test_file.stem, stamp)
            return
        with tap.clean_stdout() as stream:
            program = unittest.main(
                module=None,
                testRunner=tap.TapRunner(stream),
                exit=False,
                argv=[sys.argv[0], test_file.stem, *sys.argv[1:]],
            )
        _tell_logs(program.result)
        sys.exit(not program.result.wasSuccessful())

    # How it is done.

    def _find_emulator(self) -> Emulator:
        """Return the QEMU to test: the one named, or an installed one the test speaks of."""
        path = os.environ.get("QEMU_TEST_QEMU_BINARY")
        if path is None:
            names = (type(self).__name__, self._testMethodName)
            user = self._runs_programs
            program, path = emulator_for(self._test_file(), names, user=user)
            if path is None:
                self.skipTest(f"{program} is not installed, and QEMU_TEST_QEMU_BINARY is not set")
        # A test may run in another folder than the one the path is relative to.
        path = shutil.which(path) or path
        try:
            return Emulator.at(str(Path(path).absolute()))
        except NotAnEmulator as error:
            self.fail(str(error))

    def _test_file(self) -> Path:
        return Path(sys.modules[type(self).__module__].__file__ or ".")

    def _work_in_build_folder(self) -> None:
        """Change to the build folder, as QEMU's build does: tests name files relative to it."""
        before = Path.cwd()
        if before != BUILD_DIR:
            os.chdir(BUILD_DIR)
            self.addCleanup(os.chdir, before)

    def _own_folder(self) -> Path:
        """Make and lock the folder of this test's logs.

        The same test may be run by several processes at once; the second one gets a folder
        with a number after its name.
        """
        base = BUILD_DIR / "tests" / "functional" / self.arch
        attempt = 1
        while True:
            folder = base / (self.id() if attempt == 1 else f"{self.id()}-{attempt}")
            folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                attempt += 1
                continue
            self.addCleanup(os.close, lock)
            return folder

    def _log_to(self, path: str, *loggers: str) -> None:
        """Write what comes over these loggers to a file, until the test ends."""
        handler = logging.FileHandler(path, mode="w")
        handler.setFormatter(logging.Formatter(_FORMAT))
        self.addCleanup(handler.close)
        for name in loggers:
            logger = logging.getLogger(name)
            logger.setLevel(logging.DEBUG)
            logger.addHandler(handler)
            self.addCleanup(logger.removeHandler, handler)


def _tell_logs(result: unittest.TestResult) -> None:
    """Say on stderr where the logs of what failed are."""
    for test, _ in [*result.failures, *result.errors]:
        folder = getattr(test, "outputdir", None)
        if folder is not None:
            logs = sorted(str(path) for path in Path(folder).glob("*.log"))
            sys.stderr.write(f"More information on {test.id()}: {' '.join(logs)}\n")


class QemuUserTest(QemuBaseTest):
    """A test of an emulator of programs, `qemu-TARGET`."""

    _runs_programs = True

    def setUp(self) -> None:
        """See QemuBaseTest."""
        super().setUp()
        self._ldpath: list[str] = []

    def add_ldpath(self, ldpath: str) -> None:
        """Look for the program's loader and libraries below `ldpath`."""
        self._ldpath.append(ldpath)

    def run_cmd(
        self, bin_path: str, args: list[str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program under QEMU; return its exit code, stdout and stderr."""
        paths = [word for path in self._ldpath for word in ("-L", path)]
        command = [self.qemu_bin, *paths, bin_path, *(args or [])]
        self.log.debug("running %s", command)
        return subprocess.run(command, text=True, capture_output=True)


class QemuSystemTest(QemuBaseTest):
    """A test of an emulator of machines, `qemu-system-TARGET`.

    `machine` and `cpu` are what machines made from now on get.
    """

    cpu: str | None = None
    machine: str | None = None

    def setUp(self) -> None:
        """See QemuBaseTest; what tests read of consoles goes to `console.log`."""
        super().setUp()
        self._vms: dict[str, QEMUMachine] = {}
        self._log_to(self.log_file("console.log"), "console")

    def tearDown(self) -> None:
        """End all machines."""
        for name, vm in self._vms.items():
            try:
                vm.shutdown()
            except Exception as error:  # the test has its result already
                self.log.error("machine %s: %s", name, error)
        super().tearDown()

    def set_machine(self, machinename: str) -> None:
        """Use this machine type; skip the test when QEMU does not have it."""
        if machinename.partition(",")[0] not in self.emulator.machines:
            self.skipTest(f"no support for machine {machinename}")
        self.machine = machinename

    def require_accelerator(self, accelerator: str) -> None:
        """Skip the test unless `tcg`, `kvm` or `hvf` can be used."""
        works = {"tcg": True, "kvm": kvm_works(self.arch), "hvf": hvf_works()}
        usable = works.get(accelerator, True) and accelerator in self.emulator.accelerators
        if not usable:
            self.skipTest(f"{accelerator} accelerator does not seem to be available")

    def require_netdev(self, netdevname: str) -> None:
        """Skip the test unless QEMU has this network back end."""
        if netdevname not in self.emulator.netdevs:
            self.skipTest(f"no support for network backend {netdevname}")

    def require_device(self, devicename: str) -> None:
        """Skip the test unless QEMU has this device."""
        if f'"{devicename}"' not in self.emulator.devices:
            self.skipTest(f"no support for device {devicename}")

    @property
    def vm(self) -> QEMUMachine:
        """The machine called `default`."""
        return self.get_vm(name="default")

    def get_vm(self, *args: str, name: str | None = None) -> QEMUMachine:
        """Return the machine called `name`, or a new one; `args` are appended when it is made.

        `cpu` and `machine` count when it is made.
        """
        name = name or str(uuid.uuid4())
        if name not in self._vms:
            self._vms[name] = self._new_vm(name, *args)
        return self._vms[name]

    def set_vm_arg(self, arg: str, value: str) -> None:
        """Give the machine `default` the option `arg`; a value it had is replaced."""
        args = self.vm.args
        if arg in args:
            args[args.index(arg) + 1] = value
        else:
            args += [arg, value]

    def _new_vm(self, name: str, *args: str) -> QEMUMachine:
        vm = QEMUMachine(
            self.qemu_bin,
            name=name,
            base_temp_dir=self.workdir,
            log_dir=self.outputdir,
            console_log=self.log_file(f"{name}-console.log"),
        )
        self.log.debug("machine %s, logs in %s", name, self.outputdir)
        if backdoor := os.environ.get("QEMU_TEST_QMP_BACKDOOR"):
            vm.add_args("-chardev", f"socket,id=backdoor,path={backdoor},server=on,wait=off")
            vm.add_args("-mon", "chardev=backdoor,mode=control")
        vm.add_args(*args)
        if self.cpu is not None:
            vm.add_args("-cpu", self.cpu)
        if self.machine is not None:
            vm.set_machine(self.machine)
        return vm
