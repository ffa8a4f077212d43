"""What scripts and notebooks use, on real recordings."""

from __future__ import annotations

import asyncio
import gc
import importlib
import subprocess
import sys
import time

import pytest

import retrograde
from retrograde.errors import PositionError, UsageError
from retrograde.index.tables.build import build
from retrograde.index.tables.tables import TABLES
from retrograde.index.tables.views import VIEWS
from tests.leftovers import qemus

SECONDS = 30.0


def test_every_name_is_there():
    assert retrograde.__all__ == sorted(retrograde.__all__)
    assert set(retrograde.__all__) <= set(dir(retrograde))
    for name in retrograde.__all__:
        assert getattr(retrograde, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = retrograde.nothing


def test_importing_it_imports_nothing_large():
    code = "import sys, retrograde; print({'numpy', 'duckdb', 'asyncio'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_rows_are_as_the_reference_says():
    functions = next(view for view in VIEWS if view.name == "functions")
    assert retrograde.Call._fields == tuple(column.name for column in functions.columns)
    writes = tuple(column.name for column in TABLES["writes"].columns)
    assert retrograde.Store._fields == writes


@pytest.mark.qemu
def test_rows_have_names(recorded):
    with retrograde.open(recorded("tiny").path) as rec:
        first = next(iter(rec.query("FROM console ORDER BY position LIMIT 1")))
        assert first.position == first[0] > 0
        odd = rec.query('SELECT 1 AS one, 2 AS "a b", 3 AS class, 4 AS one, 5 AS _6').all()
        assert odd == [(1, 2, 3, 4, 5)]
        assert odd[0].one == 1
        assert odd[0]._1 == 2


@pytest.mark.qemu
@pytest.mark.usefixtures("probe")
def test_questions_share_what_they_need_until_it_is_closed(copied):
    before = qemus()
    with retrograde.open(copied("tiny")) as rec:
        write = rec.last_write(0x200100, 8)
        opened = rec._opened, len(qemus())
        assert write.position == rec.writes(0x200100, 8)[-1].position
        assert rec.last_write(0x200100, 8, at=write.position) != write
        assert rec.origin(0x200100, 8)[0].position == write.position
        assert (rec._opened, len(qemus())) == opened  # QEMU may be another, a load may take one
        assert qemus() != before
        with pytest.raises(PositionError):
            rec.last_write(0x200100, 8, at="never")
        with pytest.raises(UsageError):
            rec.writes(0x200100, 0)
        assert rec.last_write(0x200100, 8) == write
    assert qemus() == before
    assert rec.last_write(0x200100, 8) == write  # opened again
    rec.close()
    rec.close()
    assert qemus() == before


@pytest.mark.qemu
@pytest.mark.usefixtures("probe")
def test_an_index_made_meanwhile_is_used(copied):
    with retrograde.open(copied("tiny")) as rec:

        def history():
            return rec._opened.investigation._history

        write = rec.last_write(0x200100, 8)
        assert history().hints is None
        asyncio.run(build(rec, tables=["blocks", "written"]))
        assert rec.last_write(0x200100, 8) == write
        assert history().hints is not None


@pytest.mark.qemu
def test_timelines_of_its_own_with_and_without_await(recorded):
    rec = retrograde.open(recorded("tiny").path)

    async def pc():
        async with rec.open_async("50%") as timeline:
            with rec.timeline(at=1000) as other:  # a loop runs already, as in a notebook
                assert other.position == 1000
            return await timeline.pc()

    with rec.timeline("50%") as timeline:
        assert timeline.position == rec.end // 2
        assert timeline.pc() == asyncio.run(pc())


@pytest.mark.qemu
def test_timelines_share_processes_and_end_with_the_recording(recorded):
    before = set(qemus())
    with retrograde.open(recorded("tiny").path) as rec:
        timelines = [rec.timeline(f"{10 * number}%") for number in range(1, 9)]
        for number, timeline in enumerate(timelines, 1):
            timeline.step_back(5)
            assert timeline.position == rec.end * number // 10 - 5
        assert len(set(qemus()) - before) <= 2
        timelines[0].close()
        timelines[1].step_back()
    with pytest.raises(UsageError, match="closed"):
        timelines[1].step_back()
    timelines[1].close()
    assert set(qemus()) <= before


@pytest.mark.qemu
def test_one_that_is_forgotten_ends_its_processes(recorded):
    before = qemus()
    timeline = retrograde.open(recorded("tiny").path).timeline()
    assert qemus() != before
    del timeline
    gc.collect()
    deadline = time.monotonic() + SECONDS
    while qemus() != before:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.qemu
def test_a_script_that_closes_nothing_ends_without_a_word(recorded):
    code = (
        "import retrograde, sys; rec = retrograde.open(sys.argv[1]);"
        "rec.last_write(0x200100, 8); rec.query('FROM console').all(); t = rec.timeline()"
    )
    words = [sys.executable, "-c", code, recorded("tiny").path]
    before = qemus()
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert qemus() == before


def test_the_modules_named_are_where_names_come_from():
    for name, home in retrograde._HOMES.items():
        assert getattr(importlib.import_module(home), name) is getattr(retrograde, name)
