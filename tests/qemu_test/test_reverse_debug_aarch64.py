"""aarch64 runs backwards: the virtual board, with our tiny guest."""

import pytest
from reverse_scenario import ReverseScenario

from retrograde.guests.builtin import builtin_guest

pytestmark = [pytest.mark.qemu, pytest.mark.gdb]


class ReverseDebuggingAArch64(ReverseScenario):
    def test_aarch64_virt(self) -> None:
        self.set_machine("virt")
        self.cpu = "cortex-a57"
        (kernel,) = builtin_guest("tiny", "aarch64").files
        self.reverse_debugging("aarch64", "-m", "32", "-kernel", str(kernel))


if __name__ == "__main__":
    ReverseScenario.main()
