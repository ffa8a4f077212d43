"""Whole-machine time-travel debugging on stock QEMU.

::

    import retrograde

    rec = retrograde.record("boot.retro", ["-kernel", "vmlinuz", "-append", "console=ttyS0"])
    rec = retrograde.open("boot.retro")
    rec.end, next(rec.console.find("Kernel panic"))
    rec.query("SELECT position, text FROM console WHERE text LIKE '%ACPI%'").all()

Names are imported when first used, so that `import retrograde` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from retrograde.version import __version__

if TYPE_CHECKING:
    from retrograde.api import Recording, open, record  # noqa: A004
    from retrograde.errors import RetrogradeError
    from retrograde.timeline.timeline import Timeline

__all__ = ["Recording", "RetrogradeError", "Timeline", "__version__", "open", "record"]

_HOMES = {
    "open": "retrograde.api",
    "record": "retrograde.api",
    "Recording": "retrograde.api",
    "RetrogradeError": "retrograde.errors",
    "Timeline": "retrograde.timeline.timeline",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'retrograde' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
