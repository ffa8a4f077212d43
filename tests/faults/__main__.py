"""`./dev faults`: many disturbed commands, and a table of what was wrong with them."""

from __future__ import annotations

import argparse
import functools
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tests.faults import calls, corpus, kinds
from tests.faults.fault import Trial
from tests.faults.judge import COLUMNS, Verdict
from tests.faults.place import Stock
from tests.faults.trial import Laboratory

Thing = TypeVar("Thing")

RUNS = 540
SHOWN = 6
"""Things that are printed of one run."""

PRINTED = 3000
"""Characters of what is printed of one thing that is wrong."""


def main() -> int:
    """Run, print the table; 1 when anything was wrong."""
    options = _parse()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began, table = time.monotonic(), Table()
    stock = Stock(name="hello" if options.calls else "tiny")
    try:
        for verdict in _verdicts(stock, options):
            table.take(verdict)
    finally:
        stock.close()
    print(f"\n{table}\n\nin {time.monotonic() - began:.0f} s")
    return 1 if table.wrong else 0


def _verdicts(stock: Stock, options: argparse.Namespace) -> Iterator[Verdict]:
    with ThreadPoolExecutor(options.jobs) as pool:
        if options.corpus:
            if reason := corpus.why_not():
                print(f"skipped: {reason}")
                return
            cases = [case for case in corpus.cases() if str(case).startswith(options.only)]
            yield from pool.map(_told(functools.partial(corpus.run, stock)), cases)
            return
        laboratory = Laboratory(stock)
        trials = _sweep(laboratory, options) if options.calls else _seeded(laboratory, options)
        yield from pool.map(_told(laboratory.run), trials)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the number of the first run")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"how many (default {RUNS})")
    parser.add_argument("--kind", choices=kinds.KINDS, action="append", help="only this kind")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (default 2)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--calls",
        action="store_true",
        help="let every call of a short record, info, debug, index and query fail, one by one",
    )
    which.add_argument(
        "--corpus", action="store_true", help="open hostile recordings, archives and caches"
    )
    parser.add_argument(
        "--only", metavar="NAME", default="", help="of --calls or --corpus, what begins like this"
    )
    return parser.parse_args()


def _seeded(laboratory: Laboratory, options: argparse.Namespace) -> Iterator[Trial]:
    skipped = kinds.reasons_to_skip()
    for kind, reason in skipped.items():
        print(f"skipped: {kind}: {reason}")
    left_out = set(skipped) | (set(kinds.KINDS) - set(options.kind or kinds.KINDS))
    number, count = options.seed, 0
    while count < options.runs:
        if kinds.kind_of(number) not in left_out:
            yield kinds.trial_of(number, laboratory)
            count += 1
        number += 1


def _sweep(laboratory: Laboratory, options: argparse.Namespace) -> Iterator[Trial]:
    totals = {name: laboratory.counts(name, cache) for name, cache in calls.SEQUENCE}
    for command, cache, kind, number, act in calls.sweep(totals):
        name = f"{command}/{kind}/{number}" + (f"/{act}" if act else "")
        if name.startswith(options.only):
            yield Trial(name, kind, (command,), cache, calls.fault(kind, number, act))


def _told(run: Callable[[Thing], Verdict]) -> Callable[[Thing], Verdict]:
    """Say what is run, when it is."""

    def told(what: Thing) -> Verdict:
        print(what, flush=True)
        return run(what)

    return told


class Table:
    """How many runs of each kind there were, and what was wrong with them."""

    def __init__(self) -> None:
        self._runs: Counter[str] = Counter()
        self._met: Counter[str] = Counter()
        self._wrong: Counter[tuple[str, str]] = Counter()

    @property
    def wrong(self) -> int:
        """How many things were wrong."""
        return self._wrong.total()

    def take(self, verdict: Verdict) -> None:
        """Count a run, and print what was wrong with it."""
        kind = verdict.kind
        self._runs[kind] += 1
        self._met[kind] += verdict.met
        for column in {column for column, _ in verdict.wrong}:
            self._wrong[kind, column] += 1
        if verdict.wrong:
            parts = [f"{column}: {words}" for column, words in verdict.wrong[:SHOWN]]
            lines = [part[:PRINTED] for part in (*parts, *verdict.said)]
            print("\n    ".join([f"WRONG {verdict.name}", *lines]), flush=True)

    def __str__(self) -> str:
        names = ("    kind", "runs", "met", *COLUMNS)
        counts = {
            kind: (runs, self._met[kind], *(self._wrong[kind, column] for column in COLUMNS))
            for kind, runs in self._runs.items()
        }
        rows = [(kind, *those) for kind, those in counts.items()]
        if counts:
            rows.append(("all", *map(sum, zip(*counts.values(), strict=True))))
        widths = [len(name) + 2 for name in names]
        lines = [
            "".join(f"{it!s:>{width}}" for it, width in zip(row, widths, strict=True))
            for row in (names, *rows)
        ]
        return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
