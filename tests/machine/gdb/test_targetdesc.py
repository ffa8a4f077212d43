"""Target descriptions: numbering, offsets, decoding, and hostile documents."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrograde.errors import QemuRefused
from retrograde.machine.gdb.targetdesc import (
    MAX_REGISTERS,
    RegisterLayout,
    included,
)

# The shape of what QEMU serves: an undeclared prefix, a DOCTYPE, numbers in the middle.
TARGET = b"""<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target>
<architecture>powerpc:common64</architecture>
<xi:include href="core.xml"/><xi:include href="fpu.xml"/></target>"""
CORE = b"""<?xml version="1.0"?><!DOCTYPE feature SYSTEM "gdb-target.dtd">
<feature name="org.example.core">
  <flags id="msr_flags" size="8"><field name="LE" start="0" end="0"/></flags>
  <vector id="v4" type="int32" count="4"/>
  <union id="vec"><field name="words" type="v4"/></union>
  <!--reg name="hidden" bitsize="64"/-->
  <reg name="r0" bitsize="64" type="uint64"/>
  <reg name="pc" bitsize="64" type="code_ptr" regnum="64"/>
  <reg name="msr" bitsize="64" type="msr_flags"/>
</feature>"""
FPU = b"""<feature name="org.example.fpu">
  <reg name="st0" bitsize="80" type="i387_ext"/>
  <reg name="r1" bitsize="32" type="uint32" regnum="1"/>
  <reg name="v0" bitsize="128" type="vec" regnum="100"/>
</feature>"""
DOCUMENTS = {"target.xml": TARGET, "core.xml": CORE, "fpu.xml": FPU}


def single(feature: bytes) -> dict[str, bytes]:
    return {"target.xml": b"<target><feature name='f'>" + feature + b"</feature></target>"}


def test_registers_come_by_number_with_offsets() -> None:
    layout = RegisterLayout.parse(DOCUMENTS)
    assert [(r.name, r.number, r.offset, r.size) for r in layout.registers] == [
        ("r0", 0, 0, 8),
        ("r1", 1, 8, 4),
        ("pc", 64, 12, 8),
        ("msr", 65, 20, 8),
        ("st0", 66, 28, 10),
        ("v0", 100, 38, 16),
    ]
    assert layout.architecture == "powerpc:common64"
    assert layout.register("st0").feature == "org.example.fpu"
    assert layout.size == 54


def test_types_are_kept() -> None:
    types = RegisterLayout.parse(DOCUMENTS).types
    assert (types["msr_flags"].kind, types["msr_flags"].fields[0].end) == ("flags", 0)
    assert (types["v4"].kind, types["v4"].element, types["v4"].count) == ("vector", "int32", 4)
    assert types["vec"].fields[0].type == "v4"


def test_includes_are_listed_in_order() -> None:
    assert included(TARGET) == ["core.xml", "fpu.xml"]


def test_a_packet_is_decoded_in_either_order() -> None:
    layout = RegisterLayout.bare([("a", 32), ("b", 64)])
    packet = b"0000000102000000" + b"00000000"
    assert dict(layout.decode(packet, "big")) == {"a": 1, "b": 2 << 56}
    assert dict(layout.decode(packet, "little")) == {"a": 1 << 24, "b": 2}


def test_unavailable_and_missing_registers_are_left_out() -> None:
    layout = RegisterLayout.bare([("a", 16), ("b", 16), ("c", 16)])
    values = layout.decode(b"0100xxxx05", "little")
    assert dict(values) == {"a": 1}
    assert len(values) == 1
    for name in ("b", "c", "nonesuch"):
        with pytest.raises(KeyError):
            values[name]


@given(
    st.lists(st.tuples(st.sampled_from([8, 16, 32, 64, 80, 128]), st.integers(0)), min_size=1),
    st.sampled_from(["little", "big"]),
)
def test_decoding_undoes_encoding(registers: list[tuple[int, int]], order: str) -> None:
    assert order in ("little", "big")
    values = {f"r{i}": value % (1 << bits) for i, (bits, value) in enumerate(registers)}
    layout = RegisterLayout.bare((f"r{i}", bits) for i, (bits, _) in enumerate(registers))
    packet = b"".join(
        values[r.name].to_bytes(r.size, "big" if order == "big" else "little")
        for r in layout.registers
    )
    decoded = layout.decode(packet.hex().encode(), "big" if order == "big" else "little")
    assert dict(decoded) == values


@pytest.mark.parametrize(
    "documents",
    [
        {"target.xml": b"<target>"},
        {"target.xml": b"not xml"},
        {"target.xml": b'<target><xi:include href="gone.xml"/></target>'},
        {"target.xml": b'<target><xi:include href="target.xml"/></target>'},
        {"target.xml": b"<target><xi:include/></target>"},
        {"target.xml": b'<!DOCTYPE t [<!ENTITY a "b">]><target>&a;</target>'},
        {"target.xml": b'<!DOCTYPE t [<!ENTITY a SYSTEM "/etc/passwd">]><target>&a;</target>'},
        {},
        single(b"<reg bitsize='8'/>"),
        single(b"<reg name='a'/>"),
        single(b"<reg name='a' bitsize='0'/>"),
        single(b"<reg name='a' bitsize='-8'/>"),
        single(b"<reg name='a' bitsize='9999999'/>"),
        single(b"<reg name='a' bitsize='8' regnum='x'/>"),
        single(b"<reg name='a' bitsize='8'/>" * (MAX_REGISTERS + 2)),
        single(b"<flags id='f'><field name='x' start='1_0' end='3'/></flags>"),
    ],
)
def test_bad_descriptions_are_refused(documents: dict[str, bytes]) -> None:
    with pytest.raises(QemuRefused):
        RegisterLayout.parse(documents)


@given(st.binary(max_size=200) | st.text(alphabet="<>/regnam='\"= 1&;!").map(str.encode))
def test_arbitrary_documents_raise_only_refusals(document: bytes) -> None:
    try:
        RegisterLayout.parse({"target.xml": document})
    except QemuRefused as refusal:
        assert refusal.remedy
