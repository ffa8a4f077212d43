"""Which registers a gdb 'g' packet holds, read from the target description.

Format: GDB manual, appendix "Target Descriptions". A register without a number gets
that of the one before it plus one, in document order; the 'g' packet holds registers by
ascending number, and a number nobody has takes no bytes.

The documents come from a QEMU, possibly a stranger's: entity declarations are refused
(expat itself fetches nothing), includes resolve only within the documents given, and
numbers and sizes are bounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from xml.parsers import expat

from retrograde.errors import QemuRefused
from retrograde.isa.isa import ByteOrder

ROOT_DOCUMENT: Final = "target.xml"

MAX_REGISTERS: Final = 8192
MAX_BITS: Final = 65_536
MAX_DEPTH: Final = 8

_TYPE_TAGS: Final = frozenset(("vector", "union", "struct", "flags", "enum"))


@dataclass(frozen=True, slots=True)
class Register:
    """One register and where the 'g' packet has it; `offset` is in bytes."""

    name: str
    bits: int
    number: int
    type: str
    feature: str
    offset: int

    @property
    def size(self) -> int:
        """Bytes it takes in the packet."""
        return (self.bits + 7) // 8


@dataclass(frozen=True, slots=True)
class Field:
    """A member of a type; `start` and `end` are bits, both included, for flags and structs."""

    name: str
    type: str
    start: int | None
    end: int | None


@dataclass(frozen=True, slots=True)
class RegisterType:
    """A type some feature defines; `kind` is its tag (flags, union, vector, struct, enum).

    `element` and `count` say what a vector consists of.
    """

    name: str
    kind: str
    element: str
    count: int
    fields: tuple[Field, ...]


class RegisterValues(Mapping[str, int]):
    """The registers of one 'g' packet, each decoded when asked for.

    Registers past the packet's end (QEMU leaves some to 'p') and those the stub marked
    unavailable are not in the mapping.
    """

    def __init__(self, layout: RegisterLayout, packet: bytes, order: ByteOrder) -> None:
        self._layout = layout
        self._packet = packet
        self._order = order

    def __getitem__(self, name: str) -> int:
        register = self._layout.register(name)
        digits = self._packet[2 * register.offset : 2 * (register.offset + register.size)]
        if len(digits) < 2 * register.size or b"x" in digits:
            raise KeyError(name)
        return int.from_bytes(bytes.fromhex(digits.decode("ascii")), self._order)

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._layout.names if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class RegisterLayout:
    """The registers of one target in the order of the 'g' packet."""

    def __init__(
        self,
        registers: Iterable[Register],
        architecture: str = "",
        types: Mapping[str, RegisterType] | None = None,
    ) -> None:
        self.registers = tuple(registers)
        self.architecture = architecture
        """gdb's name for it, or "" where QEMU does not say."""
        self.types = dict(types or {})
        self._by_name: dict[str, Register] = {}
        for register in self.registers:
            self._by_name.setdefault(register.name, register)

    @property
    def names(self) -> tuple[str, ...]:
        """All register names, in packet order."""
        return tuple(self._by_name)

    @property
    def size(self) -> int:
        """Bytes of a packet that holds every register."""
        return sum(register.size for register in self.registers)

    def within(self, size: int) -> RegisterLayout:
        """Return the layout of the registers that a packet of `size` bytes holds.

        QEMU's 'g' ends after the core registers on targets that describe more: those are
        for 'p' (gdb_num_g_regs in gdbstub/gdbstub.c).
        """
        held = (one for one in self.registers if one.offset + one.size <= size)
        return RegisterLayout(held, self.architecture, self.types)

    def register(self, name: str) -> Register:
        """Return where `name` is. Raises KeyError when the target has no such register."""
        return self._by_name[name]

    def decode(self, packet: bytes, order: ByteOrder) -> RegisterValues:
        """Read a 'g' packet, hex digits as received, whose values are in `order`."""
        return RegisterValues(self, packet, order)

    @classmethod
    def bare(cls, registers: Iterable[tuple[str, int]]) -> RegisterLayout:
        """Make the layout of (name, bits) in packet order, for targets without a description."""
        return cls(
            _placed(
                Register(name, bits, number, "", "", 0)
                for number, (name, bits) in enumerate(registers)
            )
        )

    @classmethod
    def parse(cls, documents: Mapping[str, bytes]) -> RegisterLayout:
        """Read the description whose documents are named as the stub named them.

        Raises QemuRefused when it is not well-formed, includes a document not given, or
        exceeds the bounds.
        """
        reader = _Reader(documents)
        reader.read(ROOT_DOCUMENT)
        return cls(_placed(reader.registers), reader.architecture.strip(), reader.types)


def included(document: bytes) -> list[str]:
    """Return the names a document includes, in order. Raises QemuRefused on broken XML."""
    names: list[str] = []

    def start(tag: str, attributes: dict[str, str]) -> None:
        if tag == "xi:include":
            names.append(_attribute(attributes, "href", tag))

    parser = _parser()
    parser.StartElementHandler = start
    _run(parser, document)
    return names


class _Reader:
    """Collects registers and types over a description's documents, in document order."""

    def __init__(self, documents: Mapping[str, bytes]) -> None:
        self.registers: list[Register] = []
        self.types: dict[str, RegisterType] = {}
        self.architecture = ""
        self._documents = documents
        self._depth = 0
        self._feature = ""
        self._in_architecture = False
        self._type: RegisterType | None = None
        self._next_number = 0

    def read(self, name: str) -> None:
        if name not in self._documents:
            raise _refused(f"includes {name!r}, which the stub did not serve")
        if self._depth == MAX_DEPTH:
            raise _refused("includes documents in too deep a chain")
        self._depth += 1
        parser = _parser()
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        _run(parser, self._documents[name])
        self._depth -= 1

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "xi:include":
            self.read(_attribute(attributes, "href", tag))
        elif tag == "feature":
            self._feature = _attribute(attributes, "name", tag)
        elif tag == "reg":
            self._add_register(attributes)
        elif tag in _TYPE_TAGS:
            name = _attribute(attributes, "id", tag)
            count = _number(attributes, "count", 1, MAX_BITS)
            self._type = RegisterType(name, tag, attributes.get("type", ""), count, ())
            self.types[name] = self._type
        elif tag == "field" and self._type is not None:
            self._add_field(self._type, attributes)
        self._in_architecture = tag == "architecture"

    def _end(self, tag: str) -> None:
        self._in_architecture = False
        if tag in _TYPE_TAGS:
            self._type = None

    def _text(self, text: str) -> None:
        if self._in_architecture:
            self.architecture += text

    def _add_register(self, attributes: dict[str, str]) -> None:
        number = _number(attributes, "regnum", self._next_number, MAX_REGISTERS)
        bits = _number(attributes, "bitsize", 0, MAX_BITS)
        if bits == 0 or len(self.registers) == MAX_REGISTERS:
            raise _refused("has a register without a size, or too many registers")
        name = _attribute(attributes, "name", "reg")
        self.registers.append(
            Register(name, bits, number, attributes.get("type", "int"), self._feature, 0)
        )
        self._next_number = number + 1

    def _add_field(self, owner: RegisterType, attributes: dict[str, str]) -> None:
        start = end = None
        if "start" in attributes:
            start = _number(attributes, "start", 0, MAX_BITS)
            end = _number(attributes, "end", start, MAX_BITS)
        member = Field(attributes.get("name", ""), attributes.get("type", ""), start, end)
        self._type = RegisterType(
            owner.name, owner.kind, owner.element, owner.count, (*owner.fields, member)
        )
        self.types[owner.name] = self._type


def _placed(registers: Iterable[Register]) -> Iterator[Register]:
    """Give each register its offset; the sort is stable, as gdb's is."""
    offset = 0
    for register in sorted(registers, key=lambda register: register.number):
        yield Register(
            register.name,
            register.bits,
            register.number,
            register.type,
            register.feature,
            offset,
        )
        offset += register.size


def _parser() -> expat.XMLParserType:
    # No namespace handling: QEMU's target.xml uses the prefix xi without declaring it
    # (get_feature_xml in gdbstub/gdbstub.c), which namespace-aware parsers reject.
    parser = expat.ParserCreate()
    parser.EntityDeclHandler = _refuse_entity
    return parser


def _refuse_entity(*_declaration: object) -> None:
    raise _refused("declares an XML entity")


def _run(parser: expat.XMLParserType, document: bytes) -> None:
    try:
        parser.Parse(document, True)
    except expat.ExpatError as error:
        raise _refused(f"is not well-formed XML ({error})") from error


def _attribute(attributes: Mapping[str, str], name: str, tag: str) -> str:
    try:
        return attributes[name]
    except KeyError:
        raise _refused(f"has a {tag} without {name}") from None


def _number(attributes: Mapping[str, str], name: str, default: int, limit: int) -> int:
    text = attributes.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10) or int(text) > limit:
        raise _refused(f"has {name}={text[:20]!r}")
    return int(text)


def _refused(what: str) -> QemuRefused:
    return QemuRefused(
        f"QEMU's register description {what}.",
        "Check with `retrograde doctor` that this QEMU is a stock one.",
    )
