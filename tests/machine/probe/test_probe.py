import os
import shutil
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from retrograde.errors import EnvironmentLacks, InternalError, UsageError
from retrograde.guests import builtin_names
from retrograde.machine.probe.page import RecordFlag
from retrograde.machine.probe.probe import Probe
from retrograde.machine.probe.request import Breakpoint, Condition, Watch
from retrograde.machine.probe.support import require_probe
from retrograde.recording.rrevents import Kind
from retrograde.timeline.search import hit_of
from tests.machine.conftest import SMALL
from tests.machine.replaylab import QEMU, REGISTERS, Replay, deliveries_of, log_of, positions_of

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(shutil.which(QEMU) is None, reason=f"needs {QEMU}"),
]

STEPS = 1200
ALL = tuple(name for name in builtin_names() if name != "disks")
"""The guests that replaylab can run: its machines have no disks."""

LONG = tuple(name for name in ALL if name != "wide")
"""Guests that run longer than the firmware, in which rip is no linear address."""


def clear_of(deliveries, position):
    """The last position not after this one at which nothing is delivered.

    Where something is, `replay-break` stops before or after the delivery, as it happens.
    """
    busy = set(deliveries.tolist())
    while position in busy:
        position -= 1
    return position


def busy_span(folder, length, *, part=0.8):
    """A span of positions late in the guest's own work with a delivery in its middle."""
    deliveries = deliveries_of(folder)
    middle = int(deliveries[int(len(deliveries) * part)])
    first, last = middle - length // 2, middle + length // 2
    return clear_of(deliveries, first), clear_of(deliveries, last)


@pytest.mark.parametrize("guest", ALL)
def test_every_block_of_every_guest_begins_where_qemu_says(guest, lab_recording, probe_for):
    probe = probe_for(guest)
    probe.arm(audit=True)
    with Replay(guest, lab_recording(guest), probe=probe) as replay:
        replay.run_to_end()
    facts = probe.facts()
    assert facts.audited > 1_000_000
    assert (facts.audit_errors, facts.surprises) == (0, 0)
    begun_twice = {"pagefault": facts.faults, "smc": facts.reruns, "exceptions": facts.faults}
    assert begun_twice.get(guest, 1000) >= 1000, "the guest no longer tests what it should"


def test_without_the_logs_exceptions_positions_are_wrong_and_it_shows(lab_recording, probe_library):
    folder = lab_recording("pagefault")
    none = np.array([], np.uint64)
    with Probe(probe_library, none, none, capacity=SMALL) as probe:
        probe.arm(audit=True)
        with Replay("pagefault", folder, probe=probe) as replay:
            replay.run_to_end()
        assert probe.facts().audit_errors > 0


@pytest.mark.parametrize("guest", LONG)
def test_steps_and_registers_equal_single_stepping(guest, lab_recording, probe_for):
    folder = lab_recording(guest)
    first, _ = busy_span(folder, STEPS)
    with Replay(guest, folder, gdb=True) as replay:
        replay.run_to(first)
        oracle = [(position, regs) for position, regs, _ in replay.single_steps(STEPS)]
    last = oracle[-1][0]
    oracle = [(position, regs) for position, regs in oracle if position < last]

    probe = probe_for(guest)
    probe.arm(steps=True, registers=REGISTERS, span=(first, last))
    with Replay(guest, folder, probe=probe) as replay:
        replay.human("one-insn-per-tb on")
        replay.run_to(last)
    assert probe.facts().registers_exact

    seen = Counter((position, regs["rip"]) for position, regs in oracle)
    steps = probe.steps().tolist()
    assert not Counter(steps) - seen, "the probe saw an instruction that did not run"
    # A state gdb sees and the probe does not is one whose instruction never began:
    # an interrupt came first, or the jump to it faulted.
    unseen = {position for position, _ in seen - Counter(steps)}
    assert unseen <= set(deliveries_of(folder).tolist())
    assert {position for position, _ in steps} == {position for position, _ in oracle}

    states = dict(oracle)  # the last state at each position: the one that retires
    assert states == registers_at(probe.changes(), states)


def registers_at(changes, positions):
    """Build the registers at each position from the probe's changes."""
    values, states, at = {}, {}, 0
    for position in positions:
        while at < len(changes) and changes["position"][at] <= position:
            change = changes[at]
            value = int.from_bytes(bytes(change["bytes"])[: change["size"]], "little")
            values[REGISTERS[change["reg"]]] = value
            at += 1
        states[position] = dict(values)
    return states


def test_registers_from_long_blocks_are_called_inexact(lab_recording, probe_for):
    first, last = busy_span(lab_recording("tiny"), 20_000)
    probe = probe_for("tiny")
    probe.arm(registers=["rip"], span=(first, last))
    with Replay("tiny", lab_recording("tiny"), probe=probe) as replay:
        replay.run_to(last)
    assert len(probe.changes())
    assert not probe.facts().registers_exact


@pytest.mark.parametrize("guest", ["syscall", "exceptions", "nested", "stacks", "smc", "rep"])
def test_stores_and_pushes_turn_one_ram_into_the_next(guest, lab_recording, probe_for):
    folder = lab_recording(guest)
    first, last = busy_span(folder, 100_000)
    probe = probe_for(guest)
    probe.arm(writes=True, span=(first, last))
    with Replay(guest, folder, probe=probe) as replay:
        replay.run_to(first)
        ram = replay.ram.copy()
        replay.run_to(last)
        expected = replay.ram.copy()
    writes = probe.writes()
    pushed = writes[writes["flags"] & RecordFlag.DELIVERY != 0]
    delivered = deliveries_of(folder)
    delivered = delivered[(delivered > first) & (delivered < last)]
    assert set(pushed["position"]) == set(delivered)
    assert probe.facts().deliveries_missed == 0
    assert np.all(np.diff(writes["position"].astype(np.int64)) >= 0)
    for write in writes[(writes["flags"] & RecordFlag.IO) == 0]:
        hit = hit_of(write)
        # Their stacks are mapped one to one; a handler that stores nothing leaves only that.
        ram[list(hit.placed or range(hit.address, hit.address + hit.size))] = list(hit.data)
    assert (ram != expected).nonzero()[0].tolist() == []
    placed = pushed[pushed["flags"] & RecordFlag.NO_PADDR == 0]
    assert len(placed) > 0
    assert np.array_equal(placed["vaddr"], placed["paddr"])


@pytest.mark.parametrize("physical", [False, True])
def test_a_watched_stack_shows_what_interrupts_push(physical, lab_recording, probe_for):
    folder = lab_recording("nested")
    first, last = busy_span(folder, 100_000)
    probe = probe_for("nested")
    probe.arm(writes=True, span=(first, last))
    with Replay("nested", folder, probe=probe) as replay:
        replay.run_to(last)
        writes = probe.writes().copy()
        pushed = writes[writes["flags"] & RecordFlag.DELIVERY != 0]
        start = int(pushed["vaddr"][len(pushed) // 2]) + 3
        probe.arm(watches=[Watch(start, 1, physical=physical)], span=(first, last))
        replay.load()
        replay.run_to(last)
    hits = probe.hits()
    touching = writes[(writes["vaddr"] <= start) & (writes["vaddr"] + writes["size"] > start)]
    assert [hit_of(hit) for hit in hits] == [hit_of(write) for write in touching]
    assert (hits["flags"] & RecordFlag.DELIVERY != 0).any()
    probe = probe_for("nested")
    watches = [Watch(start, 1, physical=physical), Watch(start - 3, 8, physical=physical)]
    probe.arm(watches=watches, span=(first, last))
    with Replay("nested", folder, probe=probe) as replay:
        replay.run_to(last)
    assert [hit_of(hit) for hit in probe.hits()] == [hit_of(write) for write in touching]


@pytest.mark.parametrize("guest", ["stacks", "unaligned", "smc"])
def test_watch_hits_are_the_stores_that_touch_the_range(guest, lab_recording, probe_for):
    folder = lab_recording(guest)
    first, last = busy_span(folder, 60_000)
    everything = probe_for(guest)
    everything.arm(writes=True, span=(first, last))
    with Replay(guest, folder, probe=everything) as replay:
        replay.run_to(last)
    writes = everything.writes()
    target = writes[len(writes) // 2]
    for physical, column in ((False, "vaddr"), (True, "paddr")):
        start, length = int(target[column]), 3
        watched = range(start, start + length)
        probe = probe_for(guest)
        probe.arm(watches=[Watch(start, length, physical=physical)], span=(first, last))
        with Replay(guest, folder, probe=probe) as replay:
            replay.run_to(last)
        stores = [hit_of(write) for write in writes]
        touching = [one for one in stores if set(watched) & set(bytes_of(one, physical))]
        assert [hit_of(hit) for hit in probe.hits()] == touching != []


def bytes_of(hit, physical):
    """The addresses of all bytes that an access is to."""
    return hit.placed if physical else range(hit.address, hit.address + hit.size)


def test_watch_agrees_with_memory_seen_by_single_stepping(lab_recording, probe_for):
    folder = lab_recording("stacks")
    first, _ = busy_span(folder, STEPS)
    with Replay("stacks", folder, gdb=True) as replay:
        replay.run_to(first)
        tops = [regs["rsp"] for _, regs, _ in replay.single_steps(STEPS)]
    pushed = [after for before, after in pairwise(tops) if after == before - 8]
    start, end = min(pushed), max(pushed) + 8  # identity-mapped, as all of this guest's memory
    changed, last, before = set(), 0, b""
    with Replay("stacks", folder, gdb=True) as replay:
        replay.run_to(first)
        for position, _, ram in replay.single_steps(STEPS):
            now = ram[start:end].tobytes()
            if before not in (b"", now):
                changed.add(last)
            last, before = position, now
    delivered = deliveries_of(folder)
    changed -= {*delivered.tolist(), *(delivered - 1).tolist()}
    probe = probe_for("stacks")
    probe.arm(watches=[Watch(start, end - start)], span=(first, last))
    with Replay("stacks", folder, probe=probe) as replay:
        replay.run_to(last)
    assert changed
    assert changed <= set(probe.hits()["position"].tolist())


def test_reads_and_writes_are_told_apart(lab_recording, probe_for):
    folder = lab_recording("tiny")
    first, last = busy_span(folder, 200_000, part=0.05)
    hits = {}
    for access in ("r", "w", "rw"):
        probe = probe_for("tiny")
        probe.arm(watches=[Watch(0, 32 << 20, access)], span=(first, last))
        with Replay("tiny", folder, probe=probe) as replay:
            replay.run_to(last)
        hits[access] = [hit_of(hit) for hit in probe.hits()]
        stores = {hit.is_store for hit in hits[access]}
        assert stores == {"r": {False}, "w": {True}, "rw": {False, True}}[access]
    assert Counter(hits["rw"]) == Counter(hits["r"]) + Counter(hits["w"])


def test_breakpoints_hit_where_steps_say_with_conditions_and_again_after_a_load(
    lab_recording, probe_for
):
    folder = lab_recording("stacks")
    first, last = busy_span(folder, 40_000)
    probe = probe_for("stacks")
    probe.arm(steps=True, registers=["rax"], span=(first, last))
    with Replay("stacks", folder, probe=probe) as replay:
        replay.run_to(last)
        steps, changes = probe.steps().copy(), probe.changes().copy()
        common = [pc for pc, _ in Counter(steps["pc"].tolist()).most_common(3)]
        at_pc = steps[np.isin(steps["pc"], common)]

        probe.arm(breakpoints=[Breakpoint(pc) for pc in common], span=(first, last))
        with pytest.raises(InternalError):
            probe.hits()
        replay.load()
        replay.run_to(last)
        hits = probe.hits()
        assert hits[["position", "pc"]].tolist() == at_pc.tolist()
        assert [sorted(common)[which] for which in hits["which"]] == hits["pc"].tolist()
        assert not probe.total("steps")
        assert probe.last_hit()["position"] == at_pc["position"][-1]

        chosen = at_pc[at_pc["pc"] == common[0]]
        rax = [value_at(changes, int(position)) for position in chosen["position"]]
        value = Counter(rax).most_common()[-1][0]
        equal = Condition("rax", "==", value)
        probe.arm(breakpoints=[Breakpoint(common[0], (equal,))], span=(first, last))
        replay.load()
        replay.run_to(last)
        expected = chosen["position"][np.array(rax) == value]
        assert probe.hits()["position"].tolist() == expected.tolist()

        # The instruction's own first byte, as memory: holds always, and then never.
        for comparison, count in (("!=", len(chosen)), ("<", 0)):
            byte = Condition(common[0], comparison, 0x0, size=1)
            probe.arm(breakpoints=[Breakpoint(common[0], (byte,))], span=(first, last))
            replay.load()
            replay.run_to(last)
            assert len(probe.hits()) == count


def value_at(changes, position):
    value = changes[changes["position"] <= position][-1]
    return int.from_bytes(bytes(value["bytes"])[: value["size"]], "little")


def test_a_million_hits_keep_the_newest(lab_recording, probe_for):
    folder = lab_recording("hot")
    end = clear_of(deliveries_of(folder), log_of(folder).summary().end - 20_000)
    probe = probe_for("hot")
    probe.arm(steps=True, span=(end - 1000, end))
    with Replay("hot", folder, probe=probe) as replay:
        replay.run_to(end)
        alone = Counter(probe.steps()["pc"].tolist()).most_common(1)[0][0]
        probe.arm(breakpoints=[Breakpoint(alone)])
        replay.load()
        replay.run_to(end)
    hits = probe.hits()
    assert probe.total("hits") > 900_000
    assert len(hits) == SMALL.hits
    assert np.all(np.diff(hits["position"].astype(np.int64)) > 0)


def test_a_faulting_instruction_is_hit_as_an_attempt_and_again_when_it_retires(
    lab_recording, probe_for
):
    folder = lab_recording("pagefault")
    first, last = busy_span(folder, 40_000)
    probe = probe_for("pagefault")
    probe.arm(steps=True, span=(first, last))
    with Replay("pagefault", folder, probe=probe) as replay:
        replay.run_to(last)
        steps = probe.steps().copy()
        twice = steps[1:][np.diff(steps["position"].astype(np.int64)) == 0]
        faulting = steps[np.isin(steps["position"], twice["position"])][::2]
        pc = Counter(faulting["pc"].tolist()).most_common(1)[0][0]
        probe.arm(breakpoints=[Breakpoint(pc)], span=(first, last))
        replay.load()
        replay.run_to(last)
    hits = probe.hits()
    attempts = hits[hits["flags"] & RecordFlag.ATTEMPT != 0]["position"]
    assert attempts.tolist() == faulting["position"][faulting["pc"] == pc].tolist()
    assert set(attempts.tolist()) <= set(positions_of(folder, Kind.EXCEPTION).tolist())
    assert len(hits) > len(attempts) > 0


def test_the_probe_does_not_change_the_replay(lab_recording, probe_for):
    folder = lab_recording("exceptions")
    end = log_of(folder).summary().end
    deliveries = deliveries_of(folder)
    stops = [clear_of(deliveries, end * part // 8) for part in (4, 6, 7)]
    states = []
    for armed in (None, {}, {"writes": True, "steps": True, "audit": True}):
        probe = probe_for("exceptions") if armed is not None else None
        if armed:
            probe.arm(**armed, span=(stops[0] + 1000, stops[1] + 1000))
        with Replay("exceptions", folder, probe=probe) as replay:
            for stop in stops:
                replay.run_to(stop)
                states.append(replay.state())
        if armed:
            assert probe.total("steps") > 0
    assert states[:3] == states[3:6] == states[6:]


def test_recording_is_complete_from_the_spans_first_to_its_last_instruction(
    lab_recording, probe_for
):
    folder = lab_recording("nested")
    first, last = busy_span(folder, 30_000)
    probe = probe_for("nested")
    probe.arm(steps=True, span=(first, last))
    with Replay("nested", folder, probe=probe) as replay:
        replay.run_to(last + 50_000)
    steps = probe.steps()["position"]
    assert np.array_equal(np.unique(steps), np.arange(first, last, dtype=np.uint64))
    assert first - 4096 < probe.facts().active_from <= first


def test_qemu_without_plugins_is_refused(tmp_path):
    old = tmp_path / "qemu-system-old"
    old.write_text("#!/bin/sh\necho 'plugin interface not enabled in this build' >&2\nexit 1\n")
    old.chmod(0o755)
    with pytest.raises(EnvironmentLacks, match="not enabled in this build"):
        require_probe(old)
    with pytest.raises(EnvironmentLacks):
        require_probe(tmp_path / "absent")


def test_unknown_registers_are_refused(lab_recording, probe_for):
    probe = probe_for("tiny")
    probe.arm(registers=["rax", "r99"])
    with Replay("tiny", lab_recording("tiny"), probe=probe) as replay:
        replay.run_to(100_000)
    with pytest.raises(UsageError, match="r99"):
        probe.changes()


def test_qemu_cannot_take_the_memory_away(probe_for):
    """Reading what is beyond a file's end would end our process with SIGBUS."""
    probe = probe_for("tiny")
    with pytest.raises(PermissionError):
        os.ftruncate(probe.fd, 4096)
    assert probe.total("hits") == 0
