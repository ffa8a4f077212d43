"""Random programs for the model machine, and what their executions must look like."""

from __future__ import annotations

from hypothesis import strategies as st

from retrograde.machine.probe.request import Breakpoint, Condition, Watch
from retrograde.testing.cpu import CODE, NAMES, OPS, PC, RAM_BYTES, Execution, Instruction, Program

registers = st.integers(0, 5)
instructions = st.builds(
    Instruction, st.sampled_from(OPS), registers, registers, st.integers(-40, 200)
)


@st.composite
def programs(draw, longest=400):
    length = draw(st.integers(1, longest))
    code = draw(st.lists(instructions, min_size=1, max_size=24))
    positions = st.integers(1, length)
    addresses = st.integers(0, 300)
    return Program(
        code,
        length,
        draw(st.frozensets(positions, max_size=12)),
        draw(
            st.dictionaries(
                positions, st.tuples(addresses, st.binary(min_size=1, max_size=9)), max_size=6
            )
        ),
    )


# Where things happen: low RAM, the stack, and anywhere.
addresses = st.one_of(
    st.integers(0, 300), st.integers(RAM_BYTES - 200, RAM_BYTES - 1), st.integers(0, RAM_BYTES - 1)
)


def an_address(dice):
    """Return one of `addresses`."""
    return dice.choice(
        (
            dice.randint(0, 300),
            dice.randint(RAM_BYTES - 200, RAM_BYTES - 1),
            dice.randint(0, RAM_BYTES - 1),
        )
    )


accesses = st.sampled_from(("r", "w", "rw"))
conditions = st.builds(
    Condition,
    st.sampled_from(NAMES[:6]),
    st.sampled_from(("==", "!=", "<", "<=", ">", ">=")),
    st.integers(0, 300),
    st.sampled_from(((1 << 64) - 1, 0xFF, 1)),
)
breakpoints = st.builds(
    Breakpoint,
    st.integers(0, 24).map(lambda number: CODE + 4 * number),
    st.one_of(st.just(()), conditions.map(lambda one: (one,))),
)
watches = st.builds(Watch, addresses, st.integers(1, 64), accesses, st.booleans())


def hits_of(execution: Execution, stops):
    """(position, is_access) of all hits of break- and watchpoints, the obvious way."""
    found = []
    for stop in stops:
        if isinstance(stop, Breakpoint):
            for position, moment in enumerate(execution.last[:-1]):
                values = execution.registers[moment]
                if values[PC] == stop.pc and all(holds(one, values) for one in stop.conditions):
                    found.append((position, False))
        else:
            for access in execution.accesses:
                if touches(stop, access):
                    found.append((access.position - access.pushed, True))
    return sorted(set(found))


def holds(condition, values):
    value = values[NAMES.index(condition.operand)] & condition.mask
    return {
        "==": value == condition.value,
        "!=": value != condition.value,
        "<": value < condition.value,
        "<=": value <= condition.value,
        ">": value > condition.value,
        ">=": value >= condition.value,
    }[condition.comparison]


def touches(watch, access):
    if (watch.access == "r" and access.is_store) or (watch.access == "w" and not access.is_store):
        return False
    watched = range(watch.start, watch.start + watch.length)
    return any(at in watched for at in range(access.address, access.address + access.size))
