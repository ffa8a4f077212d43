"""A CPU of twenty instructions that executes a program once and remembers all of it.

It has what makes real machines hard to replay: interrupts and exceptions that leave one
position with two states and push a frame, instructions that fault and are begun twice,
devices that write memory by themselves. A *moment* is one state of the machine; a
position has as many moments as there are deliveries at it, plus one. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

RAM_BYTES: Final = 1 << 16
WORD: Final = 8
MASK: Final = (1 << 64) - 1

CODE: Final = 0x10_0000
"""Where the program lies: outside RAM, it cannot be changed."""

HANDLER: Final = 0x20_0000
"""Where all interrupts and exceptions go."""

STACK_TOP: Final = RAM_BYTES - WORD

NAMES: Final = ("x0", "x1", "x2", "x3", "x4", "x5", "sp", "pc")
SP: Final = NAMES.index("sp")
PC: Final = NAMES.index("pc")

Op = Literal[
    "set", "add", "sub", "xor", "mul", "shift", "load", "store", "load_byte", "store_byte",
    "push", "pop", "call", "return", "jump", "branch", "trap", "touch", "nop", "return_handler",
]  # fmt: skip

OPS: Final[tuple[Op, ...]] = (
    "set", "add", "sub", "xor", "mul", "shift", "load", "store", "load_byte", "store_byte",
    "push", "pop", "call", "return", "jump", "branch", "trap", "touch", "nop",
)  # fmt: skip
"""What programs consist of; `return_handler` is only for the handler."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """An operation on registers number `a` and `b` of x0 to x5, with a number.

    Jumps, branches and calls go `number` instructions on, or back, around the program's
    ends. `trap` is a software interrupt. `touch` stores, and faults first when its
    address is a multiple of 32: the handler then lets it be done again.
    """

    op: Op
    a: int = 0
    b: int = 0
    number: int = 0


@dataclass(frozen=True)
class Program:
    """What to execute for `length` instructions.

    Before each of the positions `interrupts` an interrupt is taken, before those in
    `transfers` a device writes bytes to an address.
    """

    code: Sequence[Instruction]
    length: int
    interrupts: frozenset[int] = frozenset()
    transfers: Mapping[int, tuple[int, bytes]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Access:
    """A load or store of `size` bytes; `pushed` by a delivery if not by its instruction."""

    position: int
    pc: int
    address: int
    size: int
    value: int
    is_store: bool
    pushed: bool = False


@dataclass(slots=True)
class Execution:
    """All moments of a program's one execution.

    `positions[m]` and `registers[m]` belong to moment m. `writes[m]` are the (address,
    bytes) that RAM has at moment m and had not at the one before. `last[p]` is the moment
    of position p from which its instruction retires. `attempts` has the pc of
    instructions that faulted at a position.
    """

    positions: list[int] = field(default_factory=list)
    registers: list[tuple[int, ...]] = field(default_factory=list)
    writes: list[list[tuple[int, bytes]]] = field(default_factory=list)
    last: list[int] = field(default_factory=list)
    accesses: list[Access] = field(default_factory=list)
    exceptions: list[int] = field(default_factory=list)
    interrupts: list[int] = field(default_factory=list)
    transfers: list[int] = field(default_factory=list)
    attempts: list[tuple[int, int]] = field(default_factory=list)

    @property
    def end(self) -> int:
        """The last position."""
        return len(self.last) - 1

    def ram_at(self, moment: int) -> bytearray:
        """Return all RAM at a moment, the slow and obvious way."""
        ram = bytearray(RAM_BYTES)
        for written in self.writes[: moment + 1]:
            for address, data in written:
                ram[address : address + len(data)] = data
        return ram


def execute(program: Program) -> Execution:
    """Execute a program once."""
    return _Cpu(program).run()


class _Cpu:
    def __init__(self, program: Program) -> None:
        self._program = program
        self._registers = [0] * len(NAMES)
        self._registers[SP] = STACK_TOP
        self._registers[PC] = CODE
        self._ram = bytearray(RAM_BYTES)
        self._fresh: list[tuple[int, bytes]] = []
        self._forgiven: int | None = None
        self._in_handler = 0
        self._pc_of_access = 0
        self._done = Execution()

    def run(self) -> Execution:
        for position in range(self._program.length + 1):
            self._come_to(position)
            if position < self._program.length:
                self._retire(position)
        return self._done

    def _come_to(self, position: int) -> None:
        """Take what is to be taken before the instruction at `position`."""
        if position in self._program.transfers:
            self._done.transfers.append(position)
            self._write(*self._program.transfers[position])
        self._moment(position)
        if position == self._program.length:
            self._done.last.append(len(self._done.positions) - 1)
            return
        if position in self._program.interrupts and self._in_handler < 3:
            self._done.interrupts.append(position)
            self._deliver(position)
        if position and self._faults():
            self._done.exceptions.append(position)
            self._done.attempts.append((position, self._registers[PC]))
            self._forgiven = self._registers[PC]
            self._deliver(position)
        self._done.last.append(len(self._done.positions) - 1)

    def _moment(self, position: int) -> None:
        self._done.positions.append(position)
        self._done.registers.append(tuple(self._registers))
        self._done.writes.append(self._fresh)
        self._fresh = []

    def _deliver(self, position: int) -> None:
        back = self._registers[PC]
        self._registers[PC] = HANDLER
        self._in_handler += 1
        for value in (back, position):
            self._registers[SP] = (self._registers[SP] - WORD) % RAM_BYTES & -WORD
            self._write(self._registers[SP], value.to_bytes(WORD, "little"))
            self._note(position, self._registers[SP], WORD, value, store=True, pushed=True)
        self._moment(position)

    def _faults(self) -> bool:
        instruction = self._at(self._registers[PC])
        if instruction.op != "touch" or self._forgiven == self._registers[PC]:
            return False
        return self._address(instruction) % 32 == 0

    def _at(self, pc: int) -> Instruction:
        if pc >= HANDLER:
            return _HANDLER[(pc - HANDLER) // 4]
        return self._program.code[(pc - CODE) // 4]

    def _retire(self, position: int) -> None:
        pc = self._registers[PC]
        instruction = self._at(pc)
        following = pc + 4
        if pc < HANDLER:
            following = CODE + (following - CODE) % (4 * len(self._program.code))
        self._registers[PC] = following
        getattr(self, f"_{instruction.op}")(instruction, position, pc)

    # -- memory --------------------------------------------------------------------------

    def _write(self, address: int, data: bytes) -> None:
        self._ram[address : address + len(data)] = data
        self._fresh.append((address, data))

    def _note(
        self, position: int, address: int, size: int, value: int, *, store: bool, pushed: bool
    ) -> None:
        pc = self._registers[PC] if pushed else self._pc_of_access
        self._done.accesses.append(
            Access(position, pc, address, size, value, is_store=store, pushed=pushed)
        )

    def _address(self, instruction: Instruction) -> int:
        return (self._registers[instruction.b] + instruction.number) % (RAM_BYTES - WORD)

    def _load_from(self, position: int, pc: int, address: int, size: int) -> int:
        self._pc_of_access = pc
        value = int.from_bytes(self._ram[address : address + size], "little")
        self._note(position, address, size, value, store=False, pushed=False)
        return value

    def _store_to(self, position: int, pc: int, address: int, size: int, value: int) -> None:
        self._pc_of_access = pc
        value &= (1 << 8 * size) - 1
        self._write(address, value.to_bytes(size, "little"))
        self._note(position, address, size, value, store=True, pushed=False)

    # -- instructions ----------------------------------------------------------------------

    def _set(self, i: Instruction, _position: int, _pc: int) -> None:
        self._registers[i.a] = i.number & MASK

    def _add(self, i: Instruction, _position: int, _pc: int) -> None:
        self._registers[i.a] = self._registers[i.a] + self._registers[i.b] + i.number & MASK

    def _sub(self, i: Instruction, _position: int, _pc: int) -> None:
        self._registers[i.a] = self._registers[i.a] - self._registers[i.b] & MASK

    def _xor(self, i: Instruction, _position: int, _pc: int) -> None:
        self._registers[i.a] ^= self._registers[i.b] ^ i.number & MASK

    def _mul(self, i: Instruction, _position: int, _pc: int) -> None:
        self._registers[i.a] = self._registers[i.a] * (i.number | 1) & MASK

    def _shift(self, i: Instruction, _position: int, _pc: int) -> None:
        self._registers[i.a] = self._registers[i.a] >> (i.number & 63)

    def _load(self, i: Instruction, position: int, pc: int) -> None:
        self._registers[i.a] = self._load_from(position, pc, self._address(i), WORD)

    def _store(self, i: Instruction, position: int, pc: int) -> None:
        self._store_to(position, pc, self._address(i), WORD, self._registers[i.a])

    def _load_byte(self, i: Instruction, position: int, pc: int) -> None:
        self._registers[i.a] = self._load_from(position, pc, self._address(i), 1)

    def _store_byte(self, i: Instruction, position: int, pc: int) -> None:
        self._store_to(position, pc, self._address(i), 1, self._registers[i.a])

    def _touch(self, i: Instruction, position: int, pc: int) -> None:
        self._forgiven = None
        self._store_to(position, pc, self._address(i), 2, self._registers[i.a])

    def _push(self, i: Instruction, position: int, pc: int) -> None:
        self._push_word(position, pc, self._registers[i.a])

    def _pop(self, i: Instruction, position: int, pc: int) -> None:
        self._registers[i.a] = self._pop_word(position, pc)

    def _call(self, i: Instruction, position: int, pc: int) -> None:
        self._push_word(position, pc, self._registers[PC])
        self._go(pc, i.number)

    def _return(self, _i: Instruction, position: int, pc: int) -> None:
        self._registers[PC] = self._somewhere(self._pop_word(position, pc))

    def _jump(self, i: Instruction, _position: int, pc: int) -> None:
        self._go(pc, i.number)

    def _branch(self, i: Instruction, _position: int, pc: int) -> None:
        if self._registers[i.a] & 1:
            self._go(pc, i.number)

    def _trap(self, _i: Instruction, position: int, pc: int) -> None:
        back = self._registers[PC]
        self._registers[PC] = HANDLER
        self._in_handler += 1
        self._done.exceptions.append(position + 1)  # where rr logs have it too
        for value in (back, position):
            self._push_word(position, pc, value)

    def _nop(self, _i: Instruction, _position: int, _pc: int) -> None:
        pass

    def _return_handler(self, _i: Instruction, position: int, pc: int) -> None:
        self._pop_word(position, pc)
        self._registers[PC] = self._somewhere(self._pop_word(position, pc))
        self._in_handler = max(0, self._in_handler - 1)

    def _push_word(self, position: int, pc: int, value: int) -> None:
        self._registers[SP] = (self._registers[SP] - WORD) % RAM_BYTES & -WORD
        self._store_to(position, pc, self._registers[SP], WORD, value)

    def _pop_word(self, position: int, pc: int) -> int:
        value = self._load_from(position, pc, self._registers[SP], WORD)
        self._registers[SP] = (self._registers[SP] + WORD) % RAM_BYTES & -WORD
        return value

    def _go(self, pc: int, number: int) -> None:
        if pc < HANDLER:
            here = (pc - CODE) // 4
            self._registers[PC] = CODE + (here + number) % len(self._program.code) * 4

    def _somewhere(self, address: int) -> int:
        """Return where a jump to a popped word leads: it may be anything."""
        if HANDLER <= address < HANDLER + 4 * len(_HANDLER):
            return address & -4
        return CODE + address // 4 % len(self._program.code) * 4


_HANDLER: Final = (
    Instruction("push", 0),
    Instruction("load", 0, 1, 64),
    Instruction("add", 0, 0, 1),
    Instruction("store", 0, 1, 64),
    Instruction("pop", 0),
    Instruction("return_handler"),
)
