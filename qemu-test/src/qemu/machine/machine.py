"""`qemu.machine.machine` for QEMU's functional tests; see `qemu_test.machine`."""

from qemu_test.machine import AbnormalShutdown, QEMUMachine, QEMUMachineError, VMLaunchFailure

__all__ = ("AbnormalShutdown", "QEMUMachine", "QEMUMachineError", "VMLaunchFailure")
