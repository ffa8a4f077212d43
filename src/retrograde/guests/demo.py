"""The two boots that `retrograde demo` records: one to power-off, one that panics."""

from __future__ import annotations

from retrograde.guests.guest import Guest
from retrograde.guests.reference import reference_guest

# The same addresses in both, and none of the calibration that makes most of a boot's log
# (docs/howto/kernel.md). Behind -- are busybox's arguments: it powers off.
_APPEND = "console=ttyS0 panic=-1 nokaslr nolapic_timer rdinit=/bin/busybox -- poweroff -f"
_BESIDES = ("-vga", "none", "-no-reboot", "-rtc", "base=2026-01-01,clock=vm")
"""With one date for both, no text they print is longer in one of them."""


def demo_boots() -> tuple[Guest, Guest]:
    """Return Debian's kernel with its initrd, and without; fetched on first use.

    Raises EnvironmentLacks as `reference_guest` does.
    """
    whole = reference_guest()
    kernel, initrd = whole.files
    machine = ("-M", "pc", "-m", "128", *_BESIDES, "-kernel", str(kernel))

    def boot(name: str, description: str, start: str, done: str, *words: str) -> Guest:
        args = [*machine, *words, "-append", _APPEND]
        return Guest(name, whole.target, description, args, (kernel,), start, done)

    return (
        boot(
            *("boot", whole.description),
            *("Run /bin/busybox", "reboot: Power down"),
            *("-initrd", str(initrd)),
        ),
        boot("broken", "the same without its initrd", "Linux version", "Kernel panic"),
    )
