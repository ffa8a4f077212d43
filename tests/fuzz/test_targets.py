"""The fuzz targets on their seeds, on what once broke them, and on inputs like these."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import targets
from tests.fuzz.packets import decode
from tests.fuzz.session import SEEDS, converse

LIKE_THEM = 150
"""Inputs of each target in the ordinary suite; `./dev fuzz` tries more."""

LINES = st.sampled_from([line for seed in SEEDS for line in seed.split(b"\n")])
CUT = LINES.flatmap(lambda line: st.integers(0, len(line)).map(lambda n: line[:n]))
SESSIONS = st.lists(LINES | CUT | st.binary(max_size=20), max_size=20).map(b"\n".join)


@pytest.mark.parametrize("name", targets.NAMES)
def test_a_target(name, tmp_path):
    target, chance = targets.load(name), random.Random(name)
    one_input = target.open_target(tmp_path)
    known = targets.inputs_of(name)
    for data in known:
        one_input(data)
    for _ in range(LIKE_THEM):
        one_input(target.mutate(chance.choice(known), chance)[: target.MOST])


def test_every_module_is_a_target():
    modules = {path.stem for path in targets.REGRESSIONS.parent.glob("*.py")}
    others = {"__init__", "__main__", "mutation", "targets", "test_targets"}
    assert modules - others == set(targets.NAMES)
    assert {path.name for path in targets.REGRESSIONS.iterdir()} <= set(targets.NAMES)


@given(SESSIONS)
def test_any_bytes_are_decoded_alike_in_any_chunks(data):
    decode(data)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SESSIONS)
def test_any_session_ends_well(tmp_path, data):
    asyncio.run(converse(data, tmp_path))
