"""Tests that boot a Linux kernel."""

from __future__ import annotations

import hashlib
import re
import select
import time
import urllib.request

from .cmd import exec_command_and_wait_for_pattern, wait_for_console_pattern
from .machine import QEMUMachine
from .testcase import QemuSystemTest
from .utils import get_usernet_hostfwd_port

PANIC = "Kernel panic - not syncing"


class LinuxKernelTest(QemuSystemTest):
    """A test that boots a Linux kernel; a kernel panic fails it while it waits."""

    KERNEL_COMMON_COMMAND_LINE = "printk.time=0 "

    def wait_for_console_pattern(self, success_message: str, vm: QEMUMachine | None = None) -> None:
        """Read the console until `success_message`; a panic or the end fails the test."""
        wait_for_console_pattern(self, success_message, PANIC, vm)

    def wait_for_regex_console_pattern(
        self,
        success_pattern: str,
        failure_pattern: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Read the console until a line in which `success_pattern` is found.

        Fails the test at a line with `failure_pattern`, at the end of the console, and after
        `timeout` seconds.
        """
        until = None if timeout is None else time.monotonic() + timeout
        wanted = f"while waiting for {success_pattern!r}"
        while True:
            line = self._console_line(until, wanted)
            if re.search(success_pattern, line):
                return
            if failure_pattern is not None and re.search(failure_pattern, line):
                self.fail(f"The guest printed {line.rstrip()!r} {wanted}")

    def launch_kernel(
        self,
        kernel: str,
        initrd: str | None = None,
        dtb: str | None = None,
        console_index: int = 0,
        wait_for: str | None = None,
    ) -> None:
        """Boot `kernel` on the machine `vm` and wait for a text on its console."""
        self.vm.set_console(console_index=console_index)
        self.vm.add_args("-kernel", kernel)
        if initrd:
            self.vm.add_args("-initrd", initrd)
        if dtb:
            self.vm.add_args("-dtb", dtb)
        self.vm.launch()
        if wait_for:
            self.wait_for_console_pattern(wait_for)

    def check_http_download(
        self,
        filename: str,
        hashsum: str,
        guestport: int = 8080,
        pythoncmd: str = "python3 -m http.server",
    ) -> None:
        """Serve `filename` from the guest and check the SHA-256 of what the host gets.

        The guest is at a shell, in its root folder, and its `guestport` is forwarded.
        """
        exec_command_and_wait_for_pattern(
            self,
            f"{pythoncmd} {guestport} & sleep 1",
            f"Serving HTTP on 0.0.0.0 port {guestport}",
        )
        port = get_usernet_hostfwd_port(self.vm)
        self.assertIsNotNone(port, "no port of the host is forwarded to the guest")
        with urllib.request.urlopen(f"http://localhost:{port}{filename}") as answer:
            self.assertEqual(hashlib.file_digest(answer, "sha256").hexdigest(), hashsum)

    def _console_line(self, until: float | None, wanted: str) -> str:
        """Return the next line of the console; the last one may lack its end."""
        console = self.vm.console_socket
        line = bytearray()
        while not line.endswith(b"\n"):
            left = None if until is None else max(0.0, until - time.monotonic())
            if not select.select([console], [], [], left)[0]:
                self.fail(f"Timed out {wanted}")
            byte = console.recv(1)
            if not byte and not line:
                self.fail(f"The console ended {wanted}")
            if not byte:
                break
            line += byte
        return line.decode(errors="replace")
