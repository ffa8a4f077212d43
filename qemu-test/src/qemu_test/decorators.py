"""Skip tests, and say why. All are decided when the test is defined."""

from __future__ import annotations

import importlib
import os
import platform
import resource
from collections.abc import Callable
from typing import Any, TypeVar
from unittest import skipIf, skipUnless

from .cmd import which

T = TypeVar("T", bound=Callable[..., Any])
Decorator = Callable[[T], T]


def skipIfMissingCommands(*args: str) -> Decorator[Any]:
    """Skip unless all these programs are on PATH."""
    missing = [program for program in args if which(program) is None]
    return skipIf(missing, f"required command(s) missing: {' '.join(missing)}")


def skipIfMissingImports(*args: str) -> Decorator[Any]:
    """Skip unless all these Python modules can be imported."""
    missing = [module for module in args if not _imports(module)]
    return skipIf(missing, f"required import(s) missing: {' '.join(missing)}")


def skipIfMissingEnv(*args: str) -> Decorator[Any]:
    """Skip unless all these environment variables are set."""
    missing = [variable for variable in args if variable not in os.environ]
    return skipIf(missing, f"required environment variable(s) not set: {' '.join(missing)}")


def skipIfOperatingSystem(*args: str) -> Decorator[Any]:
    """Skip on these systems, named as `platform.system()` does ("Darwin")."""
    return skipIf(platform.system() in args, f"not for the system {platform.system()}")


def skipIfNotMachine(*args: str) -> Decorator[Any]:
    """Skip unless this host is one of these machines, named as `platform.machine()` does."""
    return skipUnless(platform.machine() in args, f"needs a host that is {' or '.join(args)}")


def skipFlakyTest(bug_url: str | None) -> Decorator[Any]:
    """Skip unless QEMU_TEST_FLAKY_TESTS is set; `bug_url` tells what is wrong."""
    return _unless_set("QEMU_TEST_FLAKY_TESTS", f"Test is unstable: {bug_url}")


def skipUntrustedTest() -> Decorator[Any]:
    """Skip unless QEMU_TEST_ALLOW_UNTRUSTED_CODE is set: it runs guests nobody checked."""
    return _unless_set("QEMU_TEST_ALLOW_UNTRUSTED_CODE", "Test runs untrusted code")


def skipBigDataTest() -> Decorator[Any]:
    """Skip unless QEMU_TEST_ALLOW_LARGE_STORAGE is set: it downloads or makes much."""
    return _unless_set("QEMU_TEST_ALLOW_LARGE_STORAGE", "Test needs large storage")


def skipSlowTest() -> Decorator[Any]:
    """Skip unless QEMU_TEST_ALLOW_SLOW is set: it takes long."""
    return _unless_set("QEMU_TEST_ALLOW_SLOW", "Test is very slow")


def skipLockedMemoryTest(locked_memory: int) -> Decorator[Any]:
    """Skip unless `locked_memory` KiB may be locked (`ulimit -l`)."""
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    enough = limit == resource.RLIM_INFINITY or limit >= locked_memory * 1024
    return skipUnless(enough, f"needs {locked_memory} KiB of lockable memory (ulimit -l)")


def _unless_set(variable: str, reason: str) -> Decorator[Any]:
    return skipUnless(os.environ.get(variable), reason)


def _imports(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True
