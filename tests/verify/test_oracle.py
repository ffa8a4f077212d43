"""The timeline against the single-step oracle, on guests built to be nasty."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from retrograde.errors import Divergence
from retrograde.guests.builtin import builtin_names
from retrograde.machine.probe.request import Breakpoint, Condition
from retrograde.timeline.logfacts import LogFacts
from retrograde.timeline.search import Hit
from retrograde.timeline.timeline import Timeline
from retrograde.verify.claims import StateClaim, StopsClaim
from retrograde.verify.oracle import Oracle, Read, State, Walk, Watched
from retrograde.verify.randomly import compare_randomly


@pytest.mark.qemu
@pytest.mark.parametrize("guest", builtin_names())
async def test_random_operations_equal_a_fresh_replay(recorded, qemu, guest):
    seed = 7
    result = await compare_randomly(recorded(guest), qemu, count=20, seed=seed, report=print)
    assert result.operations == 20
    assert result.comparisons >= 20
    assert result.seed == seed


@pytest.mark.qemu
@pytest.mark.slow
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 1 << 32), guest=st.sampled_from(builtin_names()))
async def test_any_seed_on_any_guest(recorded, qemu, seed, guest):
    note(f"retrograde verify --random 60 --seed {seed} on {guest}")
    await compare_randomly(recorded(guest), qemu, count=60, seed=seed)


@pytest.mark.qemu
async def test_without_a_probe_movements_are_compared(recorded, qemu, monkeypatch):
    monkeypatch.setattr("retrograde.timeline.history.probes_for", lambda *_, **__: [])
    result = await compare_randomly(recorded("stacks"), qemu, count=20, seed=3)
    assert set(result.kinds) <= {"seek", "step", "step_back"}


@pytest.mark.qemu
async def test_a_timeline_that_lies_is_caught(recorded, qemu, monkeypatch):
    packet = Timeline.packet

    async def lie(self):
        true = await packet(self)
        return true[:-2] + b"99" if self.position % 7 == 3 else true

    monkeypatch.setattr(Timeline, "packet", lie)
    with pytest.raises(Divergence, match=r"At position .* is 0x.*, must be 0x.*seed 5"):
        await compare_randomly(recorded("tiny"), qemu, count=20, seed=5)


@pytest.mark.qemu
async def test_a_search_that_misses_is_caught(recorded, qemu, probe, monkeypatch):
    hits = Timeline.hits

    async def lose_some(self, start, stop):
        found = await hits(self, start, stop)
        return found if len(found) > 50 else found[1:]

    monkeypatch.setattr(Timeline, "hits", lose_some)
    with pytest.raises(Divergence, match="missed a hit"):
        for seed in range(5):
            await compare_randomly(recorded("hot"), qemu, count=60, seed=seed)


@pytest.mark.qemu
async def test_the_oracle_sees_accesses_and_both_states_of_a_delivery(recorded, qemu):
    recording = recorded("stacks")
    facts = LogFacts.read(recording.log())
    delivery = int(facts.interrupts[len(facts.interrupts) // 2])
    clear = facts.clear_before(delivery)
    async with await Oracle.start(recording, qemu, facts) as oracle:
        before = await oracle.state(clear - 50, digest=False)
        stack = oracle.decode(before.packet)["rsp"] & ~7
        read = Read(stack, 8)
        watch = Watched(stack - 8, 8, "w")
        walk = await oracle.walk(clear - 40, delivery + 2, {delivery: (read,)}, watch=watch)
    assert sorted(walk.states) == list(range(clear - 40, delivery + 3))
    assert abs(walk.states[delivery].pc - walk.states[clear].pc) > 15
    assert len(walk.states[delivery].memory[read]) == 8
    assert walk.unsure <= {clear - 1, clear, delivery - 1, delivery, delivery + 1, delivery + 2}


def hit(position, address=None):
    return Hit(position, 0x1000, address, address, 8, 0, True) if address else Hit(position, 0x1000)


def walk_of(pcs, accessed=(), unsure=()):
    states = {at: State(pc.to_bytes(8, "big").hex().encode(), pc) for at, pc in pcs.items()}
    return Walk(states, set(accessed), set(unsure))


def decode(packet):
    return {"pc": int(packet, 16)}


@pytest.mark.parametrize(
    ("kind", "start", "stop", "hits", "right"),
    [
        ("hits", 0, 5, [1, 3], True),
        ("hits", 0, 5, [3], False),
        ("hits", 0, 5, [1, 2, 3], False),
        ("run", 1, 4, [3], True),
        ("run", 0, 4, [3], False),
        ("run_back", 3, 5, [3], True),
        ("run_back", 1, 5, [1], False),
    ],
)
def test_claims_about_breakpoints(kind, start, stop, hits, right):
    walk = walk_of({0: 1, 1: 0x1000, 2: 1, 3: 0x1000, 4: 1})
    claim = StopsClaim(
        "x", kind, start, stop, tuple(map(hit, hits)), Breakpoint(0x1000), is_watching=False
    )
    check = lambda: claim.check(walk, decode)  # noqa: E731
    if right:
        check()
    else:
        with pytest.raises(Divergence):
            check()


def test_claims_about_accesses_leave_open_what_the_oracle_does():
    walk = walk_of(dict.fromkeys(range(6), 1), accessed=[2], unsure=[4])
    for hits, right in (([2], True), ([2, 4], True), ([4], False), ([2, 3], False)):
        found = tuple(hit(at, 0x2000) for at in hits)
        claim = StopsClaim("x", "hits", 0, 6, found, None, is_watching=True)
        if right:
            claim.check(walk, decode)
        else:
            with pytest.raises(Divergence):
                claim.check(walk, decode)


def test_conditions_narrow_what_must_be_found():
    walk = walk_of({0: 0x1000, 1: 0x1000})
    wanted = Breakpoint(0x1000, (Condition("pc", "==", 0, mask=0xFFF),))
    never = Breakpoint(0x1000, (Condition("pc", "!=", 0x1000),))
    both = (hit(0), hit(1))
    StopsClaim("x", "hits", 0, 2, both, wanted, False).check(walk, decode)
    StopsClaim("x", "hits", 0, 2, (), never, False).check(walk, decode)
    with pytest.raises(Divergence):
        StopsClaim("x", "hits", 0, 2, both, never, False).check(walk, decode)


def test_claims_about_states_name_what_differs():
    read = Read(16, 2)
    truth = State(b"00" * 7 + b"05", 5, "aa", {read: b"ab"})
    for wrong, what in (
        (State(b"00" * 7 + b"06", 5, "aa", {read: b"ab"}), "pc is 0x6, must be 0x5"),
        (State(b"00" * 7 + b"05", 6, "aa", {read: b"ab"}), "begins at 0x6, not at 0x5"),
        (State(b"00" * 7 + b"05", 5, "aa", {read: None}), "2 bytes of virtual memory at 0x10"),
        (State(b"00" * 7 + b"05", 5, "bb", {read: b"ab"}), "RAM differs"),
    ):
        with pytest.raises(Divergence, match=what):
            StateClaim("after a seek", 9, wrong).check(truth, decode)
    StateClaim("after a seek", 9, truth).check(truth, decode)
    other = State(b"00" * 7 + b"06", 5, "bb", {read: b"ab"})
    mixed = StateClaim("after a seek", 9, State(truth.packet, 5, "bb", {read: b"ab"}))
    mixed.check(truth, decode, also=other)
    mixed.check(other, decode, also=truth)
    with pytest.raises(Divergence, match="must be"):
        mixed.check(other, decode)
