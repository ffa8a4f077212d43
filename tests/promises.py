"""What README promises is tested where CI runs: there, a skip that nobody expects fails the run.

`./dev test` installs the targets, gdb and lldb that README names when CI is set. Elsewhere a
test whose program is not installed skips, with the reason.
"""

from __future__ import annotations

import os
import re

import pytest

EXPECTED = (
    "this lldb is too old for RISC-V",
    "QEMU's stub does not tell of watchpoints there",
    "there are no pairs",
    "this QEMU carries the probe",
    "this QEMU does not replay .* from a snapshot",
    "the timer of this QEMU's microvm interrupts nobody",
    "no file system can be mounted here",
    "nothing can be hidden here",
    "there is no /dev/full",
    "Test is unstable: docs/reverse-debug-tests.md",
)
"""Reasons to skip that no installation takes away, as regular expressions."""


def unexpected(reports: list[pytest.TestReport]) -> list[str]:
    """Return the reasons among those of skipped tests that are not EXPECTED, each once."""
    reasons = {report.longrepr[2] for report in reports if isinstance(report.longrepr, tuple)}
    return sorted(
        reason for reason in reasons if not any(re.search(one, reason) for one in EXPECTED)
    )


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run in CI that skipped something README promises."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if "CI" not in os.environ or reporter is None:
        return
    reasons = unexpected(reporter.stats.get("skipped", []))
    if reasons and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter.write_line("")
        for reason in reasons:
            reporter.write_line(f"promised by README, and skipped: {reason}", red=True)
