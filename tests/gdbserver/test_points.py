"""Which watchpoint an access is told of, and that there always is one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from retrograde.errors import InternalError
from retrograde.gdbserver.motion import Motion
from retrograde.gdbserver.points import Point, Points
from retrograde.timeline.search import Hit
from retrograde.timeline.timeline import Timeline
from retrograde.wire.rsp_stop import StopReason

CROSSING = Hit(
    5, 0x100, 0x7FF8, 0x5FF8, 16, 0, is_store=True, data=bytes(16), beyond=0x2000
)  # to 0x7FF8-0x8007, in RAM 0x5FF8-0x5FFF and 0x2000-0x2007
PUSHED = Hit(5, 0x100, 0x7FF8, None, 8, 0, is_store=True, data=bytes(8))


@pytest.mark.parametrize(
    ("point", "address"),
    [
        (Point(2, 0x8004, 8), 0x8004),
        (Point(2, 0x7FF0, 12), 0x7FF8),
        (Point(4, 0x8007, 1), 0x8007),
        (Point(2, 0x8008, 8), None),
        (Point(2, 0x7FF0, 8), None),
        (Point(3, 0x8000, 8), None),
        (Point(0, 0x8000, 1), None),
        (Point(2, 0x2004, 8, "physical"), 0x2004),
        (Point(2, 0x5FFF, 1, "physical"), 0x5FFF),
        (Point(2, 0x6000, 8, "physical"), None),
    ],
)
def test_an_access_is_seen_in_every_part_of_it(point: Point, address: int | None) -> None:
    assert point.seen_at(CROSSING) == address


def test_a_push_whose_place_is_not_known_may_be_to_a_physical_watchpoint() -> None:
    assert Point(2, 0x1234_5FFC, 4, "physical").seen_at(PUSHED) == 0x1234_5FFC
    assert Point(2, 0x1234_5000, 4, "physical").seen_at(PUSHED) is None


def motion_with(*points: Point) -> Motion:
    view = SimpleNamespace(
        isa=SimpleNamespace(target="x86_64"), layout=SimpleNamespace(registers=()), conditional=()
    )
    timeline = cast("Timeline", cast("Any", SimpleNamespace(view=view)))
    table = Points()
    for point in points:
        table.insert(point)
    return Motion(timeline, table)


def test_a_stop_by_an_access_always_has_a_reason() -> None:
    stop = motion_with(Point(2, 0x9000, 8), Point(2, 0x8000, 8))._of_access(CROSSING)
    assert (stop.reason, stop.address) == (StopReason.WATCH, 0x8000)
    with pytest.raises(InternalError):
        motion_with(Point(2, 0x9000, 8))._of_access(CROSSING)
