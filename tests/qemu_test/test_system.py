"""Every name of the API for machines, used as QEMU's own tests use it, with a real QEMU.

A file like those of QEMU: it runs under pytest and as a program.
"""

from __future__ import annotations

import logging
import select
import shutil
import subprocess
import unittest
from pathlib import Path

import pytest
from qemu.qmp import ExecuteError

from qemu.machine import QEMUMachine
from qemu.machine.machine import VMLaunchFailure
from qemu.utils import hvf_available, kvm_available, list_accel, tcg_available
from qemu_test import (
    LinuxKernelTest,
    QemuSystemTest,
    exec_command_and_wait_for_pattern,
    get_qemu_img,
    interrupt_interactive_console_until_pattern,
    wait_for_console_pattern,
)
from qemu_test.ports import Ports
from qemu_test.utils import get_usernet_hostfwd_port
from retrograde.guests.builtin import builtin_guest

pytestmark = pytest.mark.qemu

(TINY,) = builtin_guest("tiny", "x86_64").files
needs_qemu = unittest.skipUnless(shutil.which("qemu-system-x86_64"), "no qemu-system-x86_64")


@needs_qemu
class Machines(QemuSystemTest):
    """Launching, asking and ending machines."""

    def test_a_machine_from_launch_to_exit(self):
        self.assertEqual(self.arch, "x86_64")
        self.set_machine("none")
        self.assertFalse(self.vm.is_running())
        self.assertIsNone(self.vm.exitcode())
        self.assertIsNone(self.vm.get_pid())
        self.vm.add_args("-nodefaults", "-S")
        self.vm.launch()
        self.assertIs(self.vm, self.get_vm(name="default"))
        self.assertTrue(self.vm.is_running())
        command = Path(f"/proc/{self.vm.get_pid()}/cmdline").read_bytes()
        self.assertIn(b"qemu-system-x86_64", command.split(b"\0")[0])
        self.assertEqual(self.vm.cmd("query-status")["status"], "prelaunch")
        self.assertEqual(self.vm.command("query-name"), {})
        self.vm.shutdown()
        self.assertEqual(self.vm.exitcode(), 0)
        self.assertFalse(self.vm.is_running())
        self.vm.shutdown()  # has no effect
        self.vm.launch()  # again
        self.vm.kill()
        self.assertEqual(self.vm.exitcode(), -9)

    def test_a_refused_command(self):
        self.set_machine("none")
        self.vm.launch()
        answer = self.vm.qmp("change-vnc-password", password="x")
        self.assertEqual(answer["error"]["class"], "GenericError")
        self.assertTrue(answer["error"]["desc"])
        self.assertEqual(self.vm.qmp("no-such")["error"]["class"], "CommandNotFound")
        with self.assertRaises(ExecuteError):
            self.vm.cmd("no-such")

    def test_names_of_arguments(self):
        self.set_machine("none")
        self.vm.launch()
        underscores = self.vm.qmp("human-monitor-command", command_line="info status")
        self.assertIn("VM status", underscores["return"])
        given = {"command-line": "info status"}
        self.assertEqual(self.vm.qmp("human-monitor-command", given), underscores)
        self.assertIn("error", self.vm.qmp("human-monitor-command", {"command_line": "x"}))
        self.assertIn(
            "error", self.vm.qmp("human-monitor-command", conv_keys=False, command_line="x")
        )

    def test_cpu_and_machine_count_when_the_machine_is_made(self):
        self.cpu = "Nehalem"
        self.set_machine("q35")
        vm = self.get_vm("-m", "16", name="made")
        self.cpu = None
        vm.launch()
        self.assertEqual(vm.cmd("query-memory-size-summary")["base-memory"], 16 << 20)
        self.assertIn("q35", vm.cmd("qom-get", path="/machine", property="type"))
        model = vm.cmd("qom-get", path="/machine/unattached/device[0]", property="type")
        self.assertIn("Nehalem", model)

    def test_an_argument_set_twice_has_its_last_value(self):
        self.set_machine("pc")
        self.set_vm_arg("-m", "32")
        self.set_vm_arg("-m", "64")
        self.assertEqual(self.vm.args, ["-m", "64"])

    def test_machines_without_a_name_are_new_ones(self):
        self.assertIsNot(self.get_vm(), self.get_vm())

    def test_qemu_that_does_not_start(self):
        self.set_machine("pc")
        self.vm.add_args("-device", "no-such-device")
        with self.assertRaises(VMLaunchFailure) as caught:
            self.vm.launch()
        self.assertIn("no-such-device", caught.exception.output)
        self.assertEqual(caught.exception.exitcode, 1)
        self.assertIn("qemu-system-x86_64", caught.exception.command)
        self.assertEqual(self.vm.exitcode(), 1)
        self.assertIn("no-such-device", self.vm.get_log())
        self.assertFalse(self.vm.is_running())

    def test_without_a_monitor(self):
        self.set_machine("pc")
        self.vm.set_qmp_monitor(enabled=False)
        self.vm.add_args("-kernel", self.scratch_file("missing"))
        self.vm.launch()
        self.vm.wait()
        self.assertEqual(self.vm.exitcode(), 1)
        self.assertRegex(self.vm.get_log(), "could not open kernel")

    def test_events(self):
        self.set_machine("pc")
        self.vm.add_args("-S")
        self.vm.launch()
        self.assertIsNone(self.vm.get_qmp_event())
        with self.assertRaises(TimeoutError):
            self.vm.event_wait("STOP", timeout=0.01)
        self.vm.cmd("cont")
        self.vm.cmd("stop")
        self.vm.cmd("system_reset")
        reset = self.vm.event_wait("RESET", match={"data": {"guest": False}})
        self.assertEqual(reset["data"]["reason"], "host-qmp-system-reset")
        self.assertEqual(self.vm.event_wait("STOP")["event"], "STOP")
        self.assertEqual([e["event"] for e in self.vm.get_qmp_events()], ["RESUME"])
        self.vm.cmd("cont")
        self.assertEqual(self.vm.get_qmp_event(wait=True)["event"], "RESUME")
        self.vm.qmp("quit")
        self.assertEqual(self.vm.events_wait([("X", None), ("SHUTDOWN", {})])["event"], "SHUTDOWN")

    def test_a_machine_as_a_context(self):
        with QEMUMachine(self.qemu_bin, args=("-M", "none")) as vm:
            vm.launch()
            folder = vm.temp_dir
            self.assertTrue(Path(folder).is_dir())
        self.assertFalse(Path(folder).exists())
        self.assertEqual(vm.exitcode(), 0)

    def test_a_monitor_at_an_address(self):
        with self.socket_dir() as folder:
            address = f"{folder}/mon"
            vm = QEMUMachine(self.qemu_bin, args=("-M", "none"), monitor_address=address)
            with vm:
                vm.launch()
                self.assertIn("return", vm.qmp("query-status"))

    def test_a_wrapper(self):
        vm = QEMUMachine(self.qemu_bin, args=("-M", "none"), wrapper=("nice", "-n", "5"))
        with vm:
            vm.launch()
            nice = Path(f"/proc/{vm.get_pid()}/stat").read_text().rpartition(")")[2].split()[16]
            self.assertEqual(nice, "5")

    def test_subclass_of_the_machine(self):
        class Named(QEMUMachine):
            @property
            def _base_args(self):
                return [*super()._base_args, "-name", "mine"]

        with Named(self.qemu_bin, base_temp_dir=self.workdir, qmp_timer=None) as vm:
            vm.set_machine("none")
            vm.launch()
            self.assertEqual(vm.cmd("query-name"), {"name": "mine"})

    def test_user_network(self):
        self.require_netdev("user")
        self.set_machine("none")
        self.vm.add_args("-netdev", "user,id=vnet,hostfwd=:127.0.0.1:0-:22")
        self.vm.launch()
        self.assertGreater(get_usernet_hostfwd_port(self.vm), 0)

    def test_ports_that_qemu_can_take(self):
        self.set_machine("pc")
        with Ports() as ports:
            first, second = ports.find_free_ports(2)
            self.assertTrue(ports.check_bind(first))
            self.vm.add_args("-gdb", f"tcp::{first}", "-S")
            self.vm.launch()
            self.assertFalse(ports.check_bind(first))
            self.assertNotIn(ports.find_free_port(), (first, second))

    def test_qemu_img(self):
        image = self.scratch_file("disk.qcow2")
        subprocess.check_call([get_qemu_img(self), "create", "-qf", "qcow2", image, "1M"])
        self.assertTrue(Path(image).exists())

    def test_accelerators(self):
        self.assertTrue(tcg_available(self.qemu_bin))
        self.assertIn("tcg", list_accel(self.qemu_bin))
        self.assertFalse(hvf_available())
        self.assertFalse(kvm_available("s390x"))
        self.require_accelerator("tcg")
        self.require_device("virtio-net-pci")
        self.require_device("virtio-serial")  # an alias


@needs_qemu
class Consoles(LinuxKernelTest):
    """Talking to guests over their consoles."""

    def launch_tiny(self):
        self.set_machine("pc")
        self.vm.add_args("-m", "32", "-net", "none", "-no-reboot")
        self.launch_kernel(str(TINY), wait_for="TINY-START")

    def launch_bios(self):
        """SeaBIOS on the serial port; it waits for a key and then finds nothing to boot."""
        self.set_machine("pc,graphics=off")
        self.vm.set_console()
        self.vm.add_args("-net", "none", "-boot", "menu=on,splash-time=30000")
        self.vm.launch()

    def test_a_kernel_to_its_end(self):
        self.launch_tiny()
        self.vm.event_wait("SHUTDOWN")
        self.vm.wait()
        self.assertEqual(self.vm.exitcode(), 0)

    def test_what_is_read_is_returned_and_logged(self):
        self.launch_bios()
        read = wait_for_console_pattern(self, "SeaBIOS")
        self.assertTrue(read.endswith(b"SeaBIOS"), read)
        more = wait_for_console_pattern(self, "ESC")
        self.assertIn(b"version", more)
        logged = Path(self.log_file("console.log")).read_text()
        self.assertIn("SeaBIOS", logged)
        self.assertIn("(version", logged)

    def test_a_boot_loader_is_interrupted(self):
        self.launch_bios()
        read = interrupt_interactive_console_until_pattern(
            self, "Select boot device", interrupt_string="\x1b"
        )
        self.assertTrue(read.endswith(b"Select boot device"))

    def test_typing(self):
        self.launch_bios()
        wait_for_console_pattern(self, "menu")
        exec_command_and_wait_for_pattern(self, "\x1b", "Select boot device", vm=self.vm)

    def test_the_console_as_a_file_and_a_socket(self):
        self.launch_bios()
        self.assertTrue(select.select([self.vm.console_socket.fileno()], [], [], 60)[0])
        lines = self.vm.console_socket.makefile()
        self.assertIn("SeaBIOS", lines.readline() + lines.readline())
        self.assertEqual(len(self.vm.console_file.read(1)), 1)

    def test_a_line_that_fits_an_expression(self):
        self.launch_bios()
        self.wait_for_regex_console_pattern(r"SeaBIOS \(version .*\)", "panic", timeout=60)
        with self.assertRaisesRegex(self.failureException, "Timed out"):
            self.wait_for_regex_console_pattern("never", timeout=0.01)

    def test_the_end_of_the_console_fails(self):
        self.launch_tiny()
        with self.assertRaisesRegex(self.failureException, "ended.*waiting for 'never'"):
            self.wait_for_console_pattern("never")
        with self.assertRaisesRegex(self.failureException, "The console ended"):
            self.wait_for_regex_console_pattern("never")

    def test_a_failure_is_quoted_at_once(self):
        self.launch_bios()
        with self.assertRaisesRegex(self.failureException, r"printed 'BIOS' .*SeaBIOS \(version"):
            wait_for_console_pattern(self, "never", failure_message="BIOS")
        self.assertTrue(self.vm.is_running())

    def test_logging_as_tests_do(self):
        self.log.info("said")
        logging.getLogger("console").debug("printed")
        self.assertIn("said", Path(self.log_file("base.log")).read_text())
        self.assertIn("printed", Path(self.log_file("console.log")).read_text())


if __name__ == "__main__":
    QemuSystemTest.main()
