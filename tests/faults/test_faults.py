"""A run of each kind of fault, and a sample of the hostile corpus; `./dev faults` has them all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from retrograde.machine.qemu import Qemu
from tests.faults import corpus, kinds
from tests.faults.corpus import Case
from tests.faults.place import Stock
from tests.faults.trial import Laboratory

pytestmark = [pytest.mark.qemu, pytest.mark.gdb, pytest.mark.usefixtures("probe")]

NUMBERS = (18, 46, 74, 30, 40, 5, 60, 61, 35)
"""Runs of cheap commands, one of each kind."""

SAMPLE = [
    *[case for case in corpus.cases() if case.group != "cache"][::40],
    *[case for case in corpus.cases() if case.name == "cache elsewhere"],
]


@pytest.fixture(scope="module")
def laboratory(qemu: Qemu, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    if shutil.which("gdb") is None:
        pytest.skip("gdb is not installed")
    stock = Stock(Path("/tmp"))  # gdb's socket must fit into its path
    yield Laboratory(stock)
    stock.close()


@pytest.mark.parametrize("number", NUMBERS)
def test_a_seeded_run(number: int, laboratory: Laboratory) -> None:
    if reason := kinds.reasons_to_skip().get(kinds.kind_of(number)):
        pytest.skip(reason)
    verdict = laboratory.run(kinds.trial_of(number, laboratory))
    assert verdict.wrong == [], verdict.name


def test_all_kinds_are_tried() -> None:
    assert {kinds.kind_of(number) for number in NUMBERS} == set(kinds.KINDS)


@pytest.mark.skipif(bool(corpus.why_not()), reason=corpus.why_not())
@pytest.mark.parametrize("case", SAMPLE, ids=str)
def test_a_hostile_case(case: Case, laboratory: Laboratory) -> None:
    assert corpus.run(laboratory.stock, case).wrong == []


def test_the_corpus_is_large() -> None:
    names = [str(case) for case in corpus.cases()]
    assert len(names) >= 200
    assert len(set(names)) == len(names)
