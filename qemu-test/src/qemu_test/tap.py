"""Print test results as the Test Anything Protocol (testanything.org), for Meson and prove."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TextIO
from unittest import TestCase, TestResult, TestSuite

_Failure = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]


@contextmanager
def clean_stdout() -> Iterator[TextIO]:
    """Yield stdout for the TAP alone: all else that is printed, by programs too, to stderr."""
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w", buffering=1) as stream:
        os.dup2(2, 1)
        try:
            yield stream
        finally:
            sys.stdout.flush()
            os.dup2(stream.fileno(), 1)


class TapRunner:
    """A runner for unittest.main()."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def run(self, test: TestSuite | TestCase) -> TestResult:
        """Run the tests and print a line for each, and how many there were."""
        result = _TapResult(self._stream)
        self._stream.write("TAP version 13\n")
        test(result)
        self._stream.write(f"1..{result.count}\n")
        return result


class _TapResult(TestResult):
    """Prints every result as it comes; what went wrong goes to stderr."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._tap = stream
        self.count = 0

    def addSuccess(self, test: TestCase) -> None:
        super().addSuccess(test)
        # Its subtests that failed have been reported.
        if not any(of is test or getattr(of, "test_case", None) is test for of in self._failed()):
            self._line("ok", test)

    def addFailure(self, test: TestCase, err: _Failure) -> None:
        super().addFailure(test, err)
        self._failure(test, err)

    def addError(self, test: TestCase, err: _Failure) -> None:
        super().addError(test, err)
        self._failure(test, err)

    def addSubTest(self, test: TestCase, subtest: TestCase, err: _Failure | None) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._failure(subtest, err)

    def addSkip(self, test: TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        self._line("ok", test, f"SKIP {reason}")

    def addExpectedFailure(self, test: TestCase, err: _Failure) -> None:
        super().addExpectedFailure(test, err)
        self._line("not ok", test, "TODO it is known to fail")

    def addUnexpectedSuccess(self, test: TestCase) -> None:
        super().addUnexpectedSuccess(test)
        self._line("not ok", test)

    def _failed(self) -> list[TestCase]:
        return [test for test, _ in [*self.failures, *self.errors]]

    def _failure(self, test: TestCase, err: _Failure) -> None:
        traceback.print_exception(*err, file=sys.stderr)
        self._line("not ok", test)

    def _line(self, status: str, test: TestCase, directive: str = "") -> None:
        self.count += 1
        # A reason may have lines, a result is one; "#" would begin another directive.
        words = f" # {' '.join(directive.split())}" if directive else ""
        self._tap.write(f"{status} {self.count} {test.id()}{words}\n")
