"""x86_64 runs backwards: the PC, from its reset into its firmware."""

import pytest
from reverse_scenario import ReverseScenario

pytestmark = [pytest.mark.qemu, pytest.mark.gdb]


class ReverseDebuggingX86(ReverseScenario):
    """The remedies of the quirks x86-vapic and x86-hpet are applied (docs/quirks.md)."""

    def test_x86_64_pc(self) -> None:
        self.set_machine("pc,hpet=off")
        self.reverse_debugging("i386:x86-64", "-global", "apic-common.vapic=off")


if __name__ == "__main__":
    ReverseScenario.main()
