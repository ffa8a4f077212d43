"""The fuzz targets on their seeds and on what hypothesis makes of them."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gdbserver.fuzz import SEEDS, converse, decode

LINES = st.sampled_from([line for seed in SEEDS for line in seed.split(b"\n")])
CUT = LINES.flatmap(lambda line: st.integers(0, len(line)).map(lambda n: line[:n]))
SESSIONS = st.lists(LINES | CUT | st.binary(max_size=20), max_size=20).map(b"\n".join)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_seeds(seed, tmp_path):
    decode(seed)
    asyncio.run(converse(seed, tmp_path))


@given(SESSIONS)
def test_any_bytes_are_decoded_alike_in_any_chunks(data):
    decode(data)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SESSIONS)
def test_any_session_ends_well(tmp_path, data):
    asyncio.run(converse(data, tmp_path))
