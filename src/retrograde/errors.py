"""Every error retrograde raises on purpose, as one tree.

::

    RetrogradeError                      exit code
     ├── AnswerNo                        1   the question was fine, the answer is no
     │    └── Divergence                 1   a replay did not reproduce the recording
     ├── UsageError                      2   wrong use or bad input
     │    ├── PositionError              2   a position that does not parse or lies outside
     │    ├── ArgumentRefused            2   a QEMU argument that cannot be recorded
     │    └── RecordingError             2   a recording that cannot be used as it is
     │         ├── ManifestError         2   its manifest breaks the schema
     │         ├── FormatTooNew          2   written by a newer retrograde
     │         ├── LogCorrupt            2   its rr log is truncated or damaged
     │         └── InputChanged          2   an input file is not the recorded one
     ├── EnvironmentLacks                3   a program or package is missing
     │    └── QemuMismatch               3   another QEMU than the recorded one
     ├── QemuError                       4   QEMU misbehaved
     │    ├── QemuDied                   4   the process ended when it should not
     │    ├── QemuTimeout                4   no answer before the deadline
     │    └── QemuRefused                4   QEMU answered with an error
     └── InternalError                  70   our bug: please report

An error says in one sentence what happened and in another what to do. Both are
plain text for a person; programs look at the class.
"""

from __future__ import annotations


class RetrogradeError(Exception):
    """Base of all errors raised on purpose.

    `what` is one sentence saying what happened, `remedy` one sentence saying what
    to do about it, `detail` optional evidence of any length (QEMU's stderr).
    """

    exit_code = 70

    def __init__(self, what: str, remedy: str = "", detail: str = "") -> None:
        self.what = what
        self.remedy = remedy
        self.detail = detail
        super().__init__(what)

    def __str__(self) -> str:
        parts = [self.what, self.remedy, self.detail.strip()]
        return "\n".join(part for part in parts if part)


class AnswerNo(RetrogradeError):
    """The question was understood and the answer is no."""

    exit_code = 1


class Divergence(AnswerNo):
    """A replay did not reproduce the recording."""


class UsageError(RetrogradeError):
    """Wrong use or bad input."""

    exit_code = 2


class PositionError(UsageError):
    """A position that does not parse or lies outside the recording."""


class ArgumentRefused(UsageError):
    """A QEMU argument that record/replay cannot honour."""


class RecordingError(UsageError):
    """A recording that cannot be used as it is."""


class ManifestError(RecordingError):
    """A manifest that is not JSON, breaks the schema or names something forbidden."""


class FormatTooNew(RecordingError):
    """A recording written by a newer retrograde."""


class LogCorrupt(RecordingError):
    """An rr log that is truncated or damaged; says at which byte and position."""


class InputChanged(RecordingError):
    """An input file that is missing or is not the recorded one."""


class EnvironmentLacks(RetrogradeError):
    """A program or package that is needed is not here; the remedy names it."""

    exit_code = 3


class QemuMismatch(EnvironmentLacks):
    """The QEMU here is not the one that made the recording."""


class QemuError(RetrogradeError):
    """QEMU misbehaved; `detail` holds its stderr."""

    exit_code = 4


class QemuDied(QemuError):
    """The QEMU process ended when it should not have."""


class QemuKilled(QemuDied):
    """Somebody killed the QEMU process, or the kernel did for want of memory (SIGKILL)."""


class QemuTimeout(QemuError):
    """QEMU did not answer before the deadline."""


class QemuRefused(QemuError):
    """QEMU answered a command with an error."""


class InternalError(RetrogradeError):
    """An invariant of retrograde itself is broken: please report it."""
