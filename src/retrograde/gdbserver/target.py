"""What the client is told about the machine: registers, memory map, threads, names."""

from __future__ import annotations

from typing import Final

from retrograde.isa.isa import ByteOrder, Isa
from retrograde.machine.gdb.targetdesc import ROOT_DOCUMENT, Register
from retrograde.timeline.machineview import MachineView

# clang's names of the architectures (llvm's Triple.cpp) where they are not QEMU's.
_TRIPLES: Final = {
    "arm": "armv7",
    "ppc": "powerpc",
    "ppc64": "powerpc64",
    "sparc64": "sparcv9",
}

_NARROW: Final = frozenset(
    (
        *("arm", "hppa", "i386", "m68k", "microblaze", "microblazeel", "mips", "mipsel", "or1k"),
        *("ppc", "riscv32", "sparc", "xtensa", "xtensaeb"),
    )
)
"""Targets with 32-bit addresses."""

TRAP_BEFORE: Final = frozenset(
    (
        *("aarch64", "arm", "hppa", "loongarch64", "mips", "mipsel", "mips64", "mips64el"),
        *("or1k", "ppc", "ppc64", "riscv32", "riscv64", "xtensa", "xtensaeb"),
    )
)
"""Targets for which gdb sets have_nonsteppable_watchpoint (`maint print architecture`)."""


def byte_order(view: MachineView, packet: bytes) -> ByteOrder:
    """Return the guest's byte order when its `g` packet is `packet`."""
    return view.isa.order_at(view.layout.decode(packet, view.isa.byte_order))


def register_digits(view: MachineView, packet: bytes, number: int) -> bytes | None:
    """Return register `number` out of a `g` packet as `p` has it; None when it is not there."""
    register = _register(view, number)
    if register is None:
        return None
    return packet[2 * register.offset : 2 * (register.offset + register.size)]


def expedited(view: MachineView, packet: bytes) -> bytes:
    """Return registers for a stop reply: pc and sp, at which most steps of gdb look.

    What is at hand of a packet that has x's is told all: asking for more takes a machine.
    """
    chosen = {view.layout.register(name): None for name in (view.isa.pc, view.isa.sp)}
    if b"x" in packet:
        chosen |= dict.fromkeys(view.general)
    pairs = []
    for register in chosen:
        digits = packet[2 * register.offset : 2 * (register.offset + register.size)]
        if digits and b"x" not in digits:
            pairs.append(b"%02x:%s;" % (register.number, digits))
    return b"".join(pairs)


def description(isa: Isa, documents: dict[str, bytes]) -> dict[str, bytes]:
    """Return QEMU's target description, or one that only names the architecture.

    A description without registers makes gdb use those it knows by itself.
    """
    if documents:
        return documents
    name = isa.gdb_architecture.encode()
    text = b'<?xml version="1.0"?><target><architecture>%s</architecture></target>' % name
    return {ROOT_DOCUMENT: text}


def memory_map(view: MachineView, physical: bool) -> bytes:
    """Return the map: all of the virtual address space, or RAM and the rest apart.

    Nothing here needs a hardware breakpoint, which is what gdb would learn from "rom",
    and what is not in the map gdb refuses to look at.
    """
    regions = [("ram", 0, 1 << 63), ("ram", 1 << 63, 1 << 63)]
    if physical and view.ranges:
        regions = [("ram", part.start, part.stop - part.start) for part in view.ranges]
        edges = [0, *(edge for part in view.ranges for edge in (part.start, part.stop)), 1 << 63]
        gaps = zip(edges[::2], edges[1::2], strict=True)
        regions += [("rom", start, stop - start) for start, stop in gaps if start < stop]
    rows = "".join(
        f'<memory type="{kind}" start="{start:#x}" length="{length:#x}"/>'
        for kind, start, length in sorted(regions, key=lambda region: region[1])
    )
    return f'<?xml version="1.0"?><memory-map>{rows}</memory-map>'.encode()


def threads(position: str) -> bytes:
    """Return the list of threads: one virtual CPU, which is at `position`."""
    row = f'<thread id="1" core="0" name="vcpu 0">at {position}</thread>'
    return f'<?xml version="1.0"?><threads>{row}</threads>'.encode()


def host_info(isa: Isa, order: ByteOrder) -> bytes:
    """Return lldb's qHostInfo, also where its watchpoints stop (lldb-gdb-remote.txt)."""
    when = "before" if isa.target in TRAP_BEFORE else "after"
    return _machine_info(isa, order) + b"watchpoint_exceptions_received:%s;" % when.encode()


def process_info(isa: Isa, order: ByteOrder) -> bytes:
    """Return lldb's qProcessInfo."""
    return b"pid:1;" + _machine_info(isa, order)


def _machine_info(isa: Isa, order: ByteOrder) -> bytes:
    triple = f"{_TRIPLES.get(isa.target, isa.target)}-unknown-none"
    if isa.target == "ppc64" and order == "little":
        triple = "powerpc64le-unknown-none"
    bytes_ = 4 if isa.target in _NARROW else 8
    return f"triple:{triple.encode().hex()};ptrsize:{bytes_};endian:{order};".encode()


def _register(view: MachineView, number: int) -> Register | None:
    return next((r for r in view.layout.registers if r.number == number), None)
