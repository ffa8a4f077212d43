"""Whole-machine time-travel debugging on stock QEMU.

::

    import retrograde

    rec = retrograde.record("boot.retro", ["-kernel", "vmlinuz", "-append", "console=ttyS0"])
    rec = retrograde.open("boot.retro")
    rec.end, next(rec.console.find("Kernel panic")).position
    rec.query("SELECT position, text FROM console WHERE text LIKE '%ACPI%'").all()
    rec.last_write(0xffffffff82a0c3c0, at='console:"Kernel panic"')
    with rec.timeline('console:"Kernel panic"') as timeline:
        timeline.step_back(1_000_000)
        timeline.registers()["rip"]

Most names are imported when first used, so that `import retrograde` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from retrograde import errors
from retrograde.errors import RetrogradeError
from retrograde.version import __version__

if TYPE_CHECKING:
    from retrograde.api import Recording, open, record  # noqa: A004
    from retrograde.index.database import Answer
    from retrograde.index.questions.origin import Step
    from retrograde.index.questions.writes import Store
    from retrograde.index.tables.views import Call
    from retrograde.timeline.lastwrite import Write
    from retrograde.timeline.search import Hit
    from retrograde.timeline.sync import SyncTimeline
    from retrograde.timeline.timeline import Timeline

__all__ = [
    "Answer",
    "Call",
    "Hit",
    "Recording",
    "RetrogradeError",
    "Step",
    "Store",
    "SyncTimeline",
    "Timeline",
    "Write",
    "__version__",
    "errors",
    "open",
    "record",
]

_HOMES = {
    "Answer": "retrograde.index.database",
    "Call": "retrograde.index.tables.views",
    "Hit": "retrograde.timeline.search",
    "Recording": "retrograde.api",
    "Step": "retrograde.index.questions.origin",
    "Store": "retrograde.index.questions.writes",
    "SyncTimeline": "retrograde.timeline.sync",
    "Timeline": "retrograde.timeline.timeline",
    "Write": "retrograde.timeline.lastwrite",
    "open": "retrograde.api",
    "record": "retrograde.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'retrograde' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
