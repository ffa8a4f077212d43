"""The timeline without await."""

from __future__ import annotations

import inspect

import pytest

from retrograde.errors import UsageError
from retrograde.timeline.sync import SyncTimeline, open_timeline
from retrograde.timeline.timeline import Timeline

ASYNC_ONLY = {
    *("open", "on", "history", "recording", "store", "facts", "view"),
    *("target_description", "foresees", "glimpse"),
}
"""Making one is open_timeline's; the others are for front ends, which are async."""


SYNC_ONLY = {"ask"}
"""A question is asynchronous itself."""


def public(kind):
    return {name for name, _ in inspect.getmembers(kind) if not name.startswith("_")}


def test_it_has_the_names_of_the_timeline():
    names = public(SyncTimeline) - SYNC_ONLY
    assert public(Timeline) - ASYNC_ONLY == names
    for name in names:
        theirs, ours = getattr(Timeline, name), getattr(SyncTimeline, name)
        if callable(theirs):
            parameters = list(inspect.signature(theirs).parameters)
            assert list(inspect.signature(ours).parameters) == parameters


@pytest.mark.qemu
def test_a_script(recorded, probe):
    with open_timeline(recorded("tiny").path, at="50%") as timeline:
        middle = timeline.position
        assert middle == timeline.end // 2
        registers = dict(timeline.registers())
        timeline.step_back(10)
        timeline.step(10)
        assert dict(timeline.registers()) == registers
        hit = timeline.last_store(registers["rsp"], 8)
        assert hit is None or hit.position < middle
        with pytest.raises(UsageError):
            timeline.write(0, b"x")
        timeline.seek("end-5")
        assert timeline.position == timeline.end - 5
    timeline.close()


@pytest.mark.qemu
async def test_where_a_loop_runs_already_as_in_a_notebook(recorded):
    with open_timeline(recorded("tiny"), at=1000) as timeline:
        assert timeline.position == 1000
