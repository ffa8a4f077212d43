"""QEMU's API for functional tests, for any installed QEMU.

An independent implementation of the package `qemu_test` of QEMU's source tree, so that
QEMU's own functional tests, and those of others, run unmodified without a build tree. How
to run them: docs/howto/qemu-tests.md.
"""

from .environment import prepare

# Before anything else: tests look at the environment while they are defined.
prepare()

from .archive import archive_extract
from .asset import Asset
from .cmd import (
    exec_command,
    exec_command_and_wait_for_pattern,
    get_qemu_img,
    has_cmd,
    has_cmds,
    interrupt_interactive_console_until_pattern,
    is_readable_executable_file,
    run_cmd,
    wait_for_console_pattern,
    which,
)
from .config import BUILD_DIR, dso_suffix
from .decorators import (
    skipBigDataTest,
    skipFlakyTest,
    skipIfMissingCommands,
    skipIfMissingEnv,
    skipIfMissingImports,
    skipIfNotMachine,
    skipIfOperatingSystem,
    skipLockedMemoryTest,
    skipSlowTest,
    skipUntrustedTest,
)
from .gdb import GDB
from .linuxkernel import LinuxKernelTest
from .testcase import QemuBaseTest, QemuSystemTest, QemuUserTest
from .uncompress import uncompress

__all__ = (
    "BUILD_DIR",
    "GDB",
    "Asset",
    "LinuxKernelTest",
    "QemuBaseTest",
    "QemuSystemTest",
    "QemuUserTest",
    "archive_extract",
    "dso_suffix",
    "exec_command",
    "exec_command_and_wait_for_pattern",
    "get_qemu_img",
    "has_cmd",
    "has_cmds",
    "interrupt_interactive_console_until_pattern",
    "is_readable_executable_file",
    "run_cmd",
    "skipBigDataTest",
    "skipFlakyTest",
    "skipIfMissingCommands",
    "skipIfMissingEnv",
    "skipIfMissingImports",
    "skipIfNotMachine",
    "skipIfOperatingSystem",
    "skipLockedMemoryTest",
    "skipSlowTest",
    "skipUntrustedTest",
    "uncompress",
    "wait_for_console_pattern",
    "which",
)
