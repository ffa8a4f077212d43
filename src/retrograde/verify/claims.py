"""What a timeline answered, and whether the oracle agrees. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from retrograde.errors import Divergence
from retrograde.machine.gdb.targetdesc import RegisterValues
from retrograde.machine.probe.request import Breakpoint, Condition
from retrograde.timeline.search import Hit
from retrograde.verify.oracle import State, Walk

Decode = Callable[[bytes], RegisterValues]


@dataclass(frozen=True)
class StateClaim:
    """The machine at one position, as the timeline showed it after an operation."""

    operation: str
    position: int
    state: State

    def check(self, truth: State, decode: Decode, also: State | None = None) -> None:
        """Raise Divergence naming what differs from `truth`, and from `also`.

        `also` is the other state that QEMU has there (see oracle): registers come out of
        a window, which single steps fill, and the digest from a machine that ran there.
        """
        truths = (truth, also or truth)
        if self.state.packet not in [each.packet for each in truths]:
            ours, theirs = decode(self.state.packet), decode(truth.packet)
            names = [name for name in theirs if ours.get(name) != theirs[name]]
            differing = ", ".join(
                f"{name} is {_hex(ours.get(name))}, must be {theirs[name]:#x}" for name in names[:4]
            )
            raise self._differs(differing or "the registers differ")
        if self.state.pc not in [each.pc for each in truths]:
            raise self._differs(
                f"the next instruction begins at {self.state.pc:#x}, not at {truth.pc:#x}"
            )
        for read, data in self.state.memory.items():
            if data not in [each.memory[read] for each in truths]:
                raise self._differs(
                    f"{read.count} bytes of {read.space} memory at {read.address:#x} are "
                    f"{_bytes(data)}, must be {_bytes(truth.memory[read])}"
                )
        if self.state.digest not in [each.digest for each in truths]:
            raise self._differs("RAM differs")

    def _differs(self, what: str) -> Divergence:
        return differs(self.operation, self.position, what)


@dataclass(frozen=True)
class StopsClaim:
    """What a search found: the only hits at positions from `start` to before `stop`.

    `run` claims no more than that its one hit is the first of a span that begins
    where it ran from, `run_back` that its one hit is the last of one that ends there.
    A break at `ran_from` itself is not one for `run`, an access is.
    """

    operation: str
    kind: Literal["hits", "run", "run_back"]
    start: int
    stop: int
    hits: tuple[Hit, ...]
    breakpoint: Breakpoint | None
    is_watching: bool

    def check(self, walk: Walk, decode: Decode) -> None:
        """Raise Divergence when the steps in `walk` show other hits."""
        sure = set(self._breaks(walk, decode))
        maybe: set[tuple[int, bool]] = set()
        if self.is_watching:
            span = range(self.start, self.stop)
            sure |= {(at, True) for at in walk.accessed if at in span}
            maybe |= {(at, True) for at in walk.unsure if at in span}
        got = {(hit.position, hit.is_access) for hit in self.hits}
        self._compare(got - sure - maybe, "found a hit too many")
        self._compare(sure - got, "missed a hit")

    def _breaks(self, walk: Walk, decode: Decode) -> Iterator[tuple[int, bool]]:
        wanted = self.breakpoint
        if wanted is None:
            return
        first = self.start + (self.kind == "run")
        for at in range(first, self.stop):
            if walk.states[at].pc == wanted.pc:
                registers = decode(walk.states[at].packet)
                if all(holds(one, registers) for one in wanted.conditions):
                    yield at, False

    def _compare(self, wrong: set[tuple[int, bool]], what: str) -> None:
        if wrong:
            position, is_access = min(wrong)
            kind = "an access" if is_access else "a breakpoint"
            raise differs(self.operation, position, f"it {what} ({kind})")


def holds(condition: Condition, registers: RegisterValues) -> bool:
    """Whether a condition on a register holds."""
    assert isinstance(condition.operand, str)
    left, right = registers[condition.operand] & condition.mask, condition.value
    outcomes = {
        "==": left == right,
        "!=": left != right,
        "<": left < right,
        "<=": left <= right,
        ">": left > right,
        ">=": left >= right,
    }
    return outcomes[condition.comparison]


def differs(operation: str, position: int, what: str) -> Divergence:
    """Make the error of an answer that a fresh replay contradicts."""
    return Divergence(
        f"At position {position:_}, {operation}: {what}.",
        "Compared with a fresh forward replay; repeat it with the same seed, and report it.",
    )


def _hex(value: int | None) -> str:
    return "missing" if value is None else f"{value:#x}"


def _bytes(data: bytes | None) -> str:
    return "not mapped" if data is None else data.hex()
