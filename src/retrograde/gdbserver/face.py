"""As which machine a client is shown a PC: a debugger learns that once, when it attaches.

QEMU describes a 64-bit machine, whatever mode it is in, and gdb then reads 32-bit code, stacks
and symbols as 64-bit ones. So there are two more descriptions of the same registers: of an
i386, and of an 8086, whose `eip` is the linear address (`ip` is the register) because gdb knows
nothing of segments. Names are those of gdb's own i386 features (GDB manual, "i386 Features").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from retrograde.errors import UsageError
from retrograde.isa.isa import LONG_MODE, Isa
from retrograde.machine.gdb.targetdesc import ROOT_DOCUMENT, RegisterLayout
from retrograde.recording.bundle import Recording
from retrograde.recording.folder import open_regular
from retrograde.timeline.machineview import MachineView

Mode = Literal[16, 32, 64]

WIDEST: Final[dict[str, Mode]] = {"x86_64": 64, "i386": 32}
"""The mode that QEMU's own description is for."""

PROTECTED: Final = 1
"""Bit of cr0 (PE) that is clear in real mode."""

_GENERAL: Final = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
_SEGMENTS: Final = ("cs", "ss", "ds", "es", "fs", "gs")
_FLOATING: Final = ("fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop")
_SYSTEM: Final = ("cr0", "cr2", "cr3", "cr4")
_VECTORS: Final = (
    *(("v4f", "ieee_single", 4), ("v2d", "ieee_double", 2), ("v16i8", "int8", 16)),
    *(("v8i16", "int16", 8), ("v4i32", "int32", 4), ("v2i64", "int64", 2)),
)
_FIELDS: Final = tuple(
    zip(_VECTORS, ("float", "double", "int8", "int16", "int32", "int64"), strict=True)
)
_NAMES_IN_QEMU: Final = {"eip": "rip", "ip": "rip"} | {name: f"r{name[1:]}" for name in _GENERAL}

_ELF_OF_32_BITS: Final = b"\x7fELF\x01"

_ARCHITECTURES: Final[dict[Mode, str]] = {16: "i8086", 32: "i386"}


@dataclass(frozen=True)
class Face:
    """How a client sees registers; `view` is what it takes for the machine.

    `names` are QEMU's by the client's numbers. With `linear` the pc is the linear address.
    """

    view: MachineView
    names: Mapping[int, str]
    document: bytes = b""
    linear: bool = False

    def packet(self, packet: bytes, linear_pc: int, seen: MachineView) -> bytes:
        """Return QEMU's `g` packet, which may have x's, as the client has it.

        `seen` is how QEMU lays it out.
        """
        if not self.document:
            return packet
        parts = []
        for register in self.view.layout.registers:
            whole = seen.layout.register(self.names[register.number])
            at = 2 * whole.offset
            digits = packet[at : at + 2 * min(whole.size, register.size)]
            if self.linear and register.name == "eip":
                digits = (linear_pc & 0xFFFFFFFF).to_bytes(4, "little").hex().encode()
            parts.append(digits.ljust(2 * register.size, b"0"))
        return b"".join(parts)


def face_of(view: MachineView, mode: Mode | None) -> Face:
    """Return the machine as code of `mode` bits sees it; None is as QEMU describes it.

    Raises UsageError for what this machine cannot be shown as.
    """
    if mode in (None, WIDEST.get(view.isa.target)):
        return Face(view, {one.number: one.name for one in view.layout.registers})
    if mode not in modes_of(view.isa):
        raise UsageError(f"A {view.isa.target} has no mode {mode}.", "Leave it as it is.")
    document = _document(mode)
    layout = RegisterLayout.parse({ROOT_DOCUMENT: document})
    isa = Isa("i386", _ARCHITECTURES[mode], "little", "eip", "esp")
    in_qemu = _NAMES_IN_QEMU if view.isa.target == "x86_64" else {"ip": "eip"}
    names = {one.number: in_qemu.get(one.name, one.name) for one in layout.registers}
    seen = replace(view, isa=isa, layout=layout, described=layout)
    return Face(seen, names, document, linear=mode == 16)


def modes_of(isa: Isa) -> tuple[Mode, ...]:
    """Return the modes a machine can be shown in, none where it has but one."""
    modes: tuple[Mode, ...] = (16, 32, 64)
    return tuple(mode for mode in modes if mode <= WIDEST.get(isa.target, 0))


def mode_of(registers: Mapping[str, int]) -> Mode:
    """Return what code a PC runs; 32-bit code of a 64-bit system counts as that system's."""
    if registers["efer"] & LONG_MODE:
        return 64
    return 32 if registers["cr0"] & PROTECTED else 16


def mode_for(recording: Recording, program: Path | None) -> Mode | None:
    """Return the mode to show a recording of a 64-bit PC in when its program is for a 32-bit one.

    None otherwise. Raises OSError when the program cannot be read.
    """
    if program is None or recording.manifest.machine.target != "x86_64":
        return None
    with open_regular(program, follow=True) as file:
        return 32 if file.read(len(_ELF_OF_32_BITS)) == _ELF_OF_32_BITS else None


def _document(mode: Mode) -> bytes:
    """Return a target description of an i386 with the registers that gdb asks for."""
    core = [_register(name, 32, "data_ptr" if name in ("esp", "ebp") else "") for name in _GENERAL]
    core += [_register("eip", 32, "code_ptr"), _register("eflags", 32)]
    core += [_register(name, 32) for name in _SEGMENTS]
    core += [_register(f"st{number}", 80, "i387_ext") for number in range(8)]
    core += [_register(name, 32) for name in _FLOATING]
    vectors = [f'<vector id="{name}" type="{of}" count="{n}"/>' for name, of, n in _VECTORS]
    fields = [f'<field name="v{n}_{of}" type="{name}"/>' for (name, _, n), of in _FIELDS]
    vectors.append(f'<union id="vec128">{"".join(fields)}</union>')
    vectors += [_register(f"xmm{number}", 128, "vec128") for number in range(8)]
    vectors.append(_register("mxcsr", 32))
    system = [_register(name, 32) for name in _SYSTEM]
    system += [_register("ip", 32)] if mode == 16 else []
    return "".join(
        (
            '<?xml version="1.0"?><target>',
            f"<architecture>{_ARCHITECTURES[mode]}</architecture>",
            f'<feature name="org.gnu.gdb.i386.core">{"".join(core)}</feature>',
            f'<feature name="org.gnu.gdb.i386.sse">{"".join(vectors)}</feature>',
            f'<feature name="org.retrograde.system">{"".join(system)}</feature>',
            "</target>",
        )
    ).encode()


def _register(name: str, bits: int, kind: str = "") -> str:
    return f'<reg name="{name}" bitsize="{bits}" type="{kind or "int32"}"/>'
