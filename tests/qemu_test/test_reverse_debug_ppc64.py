"""ppc64, big-endian, runs backwards: its firmware from the reset."""

import pytest
from reverse_scenario import ReverseScenario

from qemu_test import skipFlakyTest

pytestmark = [pytest.mark.qemu, pytest.mark.gdb]


class ReverseDebuggingPpc64(ReverseScenario):
    def test_ppc64_pseries(self) -> None:
        self.set_machine("pseries")
        self.reverse_debugging("powerpc:common64")

    @skipFlakyTest("docs/reverse-debug-tests.md, on powernv")
    def test_ppc64_powernv(self) -> None:
        self.set_machine("powernv")
        # Before the first tick of the firmware's timer, which QEMU cannot take back.
        self.reverse_debugging("powerpc:common64", reach=100_000)


if __name__ == "__main__":
    ReverseScenario.main()
