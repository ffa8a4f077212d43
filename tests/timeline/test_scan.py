"""What is known of a scan, against a list of all hits."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from retrograde.machine.probe.page import RECORD, RecordFlag
from retrograde.timeline import scan as module
from retrograde.timeline.scan import Scan, gaps

END = 60

hits = st.lists(st.tuples(st.integers(0, END - 1), st.booleans()), max_size=30, unique=True).map(
    sorted
)
spans = st.lists(st.tuples(st.integers(0, END), st.integers(0, END)).map(sorted), max_size=8)


def records(found):
    rows = np.zeros(len(found), RECORD)
    rows["position"] = [position for position, _ in found]
    rows["flags"] = [RecordFlag.ACCESS * is_access for _, is_access in found]
    return rows


def told(record):
    return None if record is None else (record["position"], bool(record["flags"]))


@given(hits, spans, st.integers(0, END), st.integers(0, END))
def test_only_what_is_known_is_told(all_hits, looked_into, one, other):
    scan, known = Scan(), set()
    for start, stop in looked_into:
        scan.add(start, stop, records([hit for hit in all_hits if start <= hit[0] < stop]))
        known |= set(range(start, stop))
    start, stop = sorted((one, other))

    unknown = [at for at in range(start, stop) if at not in known]
    reach = min(unknown, default=stop)
    ahead = [hit for hit in all_hits if start <= hit[0] < reach and hit != (start, False)]
    record, at = scan.next(start, stop, passed=start)
    assert told(record) == (ahead[0] if ahead else None)
    assert ahead or at == reach

    reach = max(unknown, default=start - 1) + 1
    behind = [hit for hit in all_hits if reach <= hit[0] < stop]
    record, at = scan.last(start, stop)
    assert told(record) == (behind[-1] if behind else None)
    assert behind or at == reach
    assert scan.knows(start) == (start in known)


def test_too_many_records_are_let_go_and_the_newest_stay(monkeypatch):
    monkeypatch.setattr(module, "RECORDS_KEPT", 5)
    scan = Scan()
    scan.add(0, 10, records([(at, False) for at in range(4)]))
    scan.add(10, 20, records([(at, False) for at in range(10, 14)]))
    assert not scan.knows(0)
    assert told(scan.last(0, 20)[0]) == (13, False)


@given(spans.map(lambda some: [(a, b) for a, b in some if a < b]))
def test_gaps_are_what_spans_leave(some):
    disjoint, at = [], 0
    for start, stop in sorted(some):
        if start > at:
            disjoint.append((start, stop))
            at = stop
    left = {at for low, high in gaps(disjoint, 0, END) for at in range(low, high)}
    assert left == set(range(END)) - {at for low, high in disjoint for at in range(low, high)}
