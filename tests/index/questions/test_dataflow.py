"""What instructions do with values, one by one; the bytes are what GNU as makes of the words."""

from __future__ import annotations

import sys

import capstone
import pytest

from retrograde.errors import EnvironmentLacks
from retrograde.index.questions.dataflow import Slice, Source
from retrograde.index.questions.dataflow_arm64 import Arm64
from retrograde.index.questions.dataflow_riscv import Riscv
from retrograde.index.questions.dataflow_x86 import X86
from retrograde.index.questions.stretch import dataflow_for


def decoded(code: str, arch: int, mode: int) -> capstone.CsInsn:
    decoder = capstone.Cs(arch, mode)
    decoder.detail = True
    (insn,) = decoder.disasm(bytes.fromhex(code), 0x1000)
    return insn


def x86(code: str) -> capstone.CsInsn:
    return decoded(code, capstone.CS_ARCH_X86, capstone.CS_MODE_64)


def arm64(code: str) -> capstone.CsInsn:
    return decoded(code, capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)


def riscv(code: str) -> capstone.CsInsn:
    mode = capstone.CS_MODE_RISCV64 | capstone.CS_MODE_RISCVC
    return decoded(code, capstone.CS_ARCH_RISCV, mode)


def short(source: Source) -> str:
    """`copy rax:0+8`, `load`, `load 1/2`, `computed rax rbx`; with ? where it may not happen."""
    words = source.kind + "?" * source.is_maybe
    if source.copied:
        words += f" {source.copied.register}:{source.copied.first}+{source.copied.count}"
    if source.parts > 1:
        words += f" {source.index}/{source.parts}"
    return " ".join((words, *source.reads))


SET = [
    ("488b4308", "rax", "load"),  # mov rax, [rbx + 8]
    ("0fb603", "rax", "load"),  # movzx eax, byte ptr [rbx]
    ("0fb6c7", "rax", "copy rbx:1+1"),  # movzx eax, bh
    ("4889d8", "rax", "copy rbx:0+8"),  # mov rax, rbx
    ("b805000000", "rax", "constant"),  # mov eax, 5
    ("31c0", "rax", "constant"),  # xor eax, eax
    ("31d8", "rax", "computed eax ebx"),  # xor eax, ebx
    ("58", "rax", "load"),  # pop rax
    ("58", "rsp", "computed rsp"),
    ("c9", "rbp", "load"),  # leave
    ("c9", "rsp", "computed rbp"),
    ("5c", "rsp", "load"),  # pop rsp
    ("4887d8", "rax", "copy rbx:0+8"),  # xchg rax, rbx
    ("4887d8", "rbx", "copy rax:0+8"),
    ("480f44c3", "rax", "copy? rbx:0+8"),  # cmove rax, rbx
    ("480f4403", "rax", "load?"),  # cmove rax, [rbx]
    ("0fc103", "rax", "load"),  # xadd [rbx], eax
    ("480fb10b", "rax", "load?"),  # cmpxchg [rbx], rcx
    ("ad", "rax", "load"),  # lodsd
    ("ad", "rsi", "computed rsi"),
    ("ec", "rax", "input"),  # in al, dx
    ("0f31", "rdx", "input"),  # rdtsc
    ("488d03", "rax", "copy rbx:0+8"),  # lea rax, [rbx]
    ("488d4308", "rax", "computed rbx"),  # lea rax, [rbx + 8]
    ("488d0500000000", "rax", "constant"),  # lea rax, [rip]
    ("480303", "rax", "computed rax memory"),  # add rax, [rbx]
    ("48f7f1", "rax", "computed rax rdx rcx"),  # div rcx
    ("66480f7ec3", "rbx", "copy xmm0:0+16"),  # movq rbx, xmm0
    ("f30f6f03", "xmm0", "load"),  # movdqu xmm0, [rbx]
    ("0f57c0", "xmm0", "constant"),  # xorps xmm0, xmm0
    ("f20f1003", "xmm0", "load"),  # movsd xmm0, [rbx]
    ("f20f10c1", "xmm0", "computed xmm0 xmm1"),  # movsd xmm0, xmm1
    ("0f1603", "xmm0", "computed xmm0 memory"),  # movhps xmm0, [rbx]
    ("86e0", "rax", "computed al ah"),  # xchg al, ah
    ("0f20d8", "rax", "input"),  # mov rax, cr3
    ("f2ae", "rdi", "computed rdi"),  # repne scasb
    ("c8100000", "rbp", "computed"),  # enter 16, 0
]


@pytest.mark.parametrize(("code", "register", "expected"), SET)
def test_x86_registers(code: str, register: str, expected: str) -> None:
    insn, flow = x86(code), X86()
    assert register in {one.register for one in flow.written(insn)}
    assert short(flow.source(insn, register)) == expected


STORED = [
    ("48894308", ["copy rax:0+8"]),  # mov [rbx + 8], rax
    ("8823", ["copy rax:1+1"]),  # mov [rbx], ah
    ("c70305000000", ["constant"]),  # mov dword ptr [rbx], 5
    ("50", ["copy rax:0+8"]),  # push rax
    ("6a05", ["constant"]),  # push 5
    ("ff33", ["load"]),  # push [rbx]
    ("e800000000", ["constant"]),  # call
    ("48a5", ["load"]),  # movsq
    ("f3ab", ["copy rax:0+4"]),  # rep stosd
    ("6c", ["input"]),  # insb
    ("480103", ["computed rax memory"]),  # add [rbx], rax
    ("488703", ["copy rax:0+8"]),  # xchg [rbx], rax
    ("f0480fb10b", ["copy rcx:0+8"]),  # lock cmpxchg [rbx], rcx
    ("0f1103", ["copy xmm0:0+16"]),  # movups [rbx], xmm0
    ("f20f1103", ["copy xmm0:0+16"]),  # movsd [rbx], xmm0
    ("0f9403", ["computed"]),  # sete [rbx]
    ("8f00", ["load"]),  # pop [rax]
    ("0fa0", ["input"]),  # push fs
]


@pytest.mark.parametrize(("code", "expected"), STORED)
def test_x86_stores(code: str, expected: list[str]) -> None:
    assert [short(source) for source in X86().stored(x86(code))] == expected


def test_x86_parts_of_registers() -> None:
    flow = X86()
    assert flow.written(x86("89d8")) == [Slice("rax", 0, 8)]  # mov eax, ebx clears the rest
    assert flow.written(x86("88d8")) == [Slice("rax", 0, 1)]  # mov al, bl does not
    assert Slice("rax", 0, 1).overlaps(Slice("rax", 0, 8))
    assert not Slice("rax", 0, 1).covers(Slice("rax", 0, 8))
    assert not Slice("rax", 0, 1).overlaps(Slice("rax", 1, 1))
    assert {one.register for one in flow.written(x86("0f05"))} == {"rcx", "r11"}  # syscall


ARM64_SET = [
    ("400040f9", "x0", "load"),  # ldr x0, [x2]
    ("fd7bc1a8", "x30", "load 1/2"),  # ldp x29, x30, [sp], #16
    ("fd7bc1a8", "sp", "computed sp"),
    ("40444038", "x0", "load"),  # ldrb w0, [x2], #4
    ("e00301aa", "x0", "copy x1:0+8"),  # mov x0, x1
    ("e003012a", "x0", "copy x1:0+4"),  # mov w0, w1
    ("e0031faa", "x0", "constant"),  # mov x0, xzr
    ("200080d2", "x0", "constant"),  # mov x0, #1
    ("4100a0f2", "x1", "computed x1"),  # movk x1, #2, lsl #16
    ("0000038b", "x0", "computed x0 x3"),  # add x0, x0, x3
    ("000038d5", "x0", "input"),  # mrs x0, midr_el1
    ("207c4093", "x0", "copy x1:0+4"),  # sxtw x0, w1
    ("00000094", "x30", "constant"),  # bl
    ("20fc5fc8", "x0", "load"),  # ldaxr x0, [x1]
    ("2080a1f8", "x0", "load"),  # swpa x1, x0, [x1]
    ("20f07dd3", "x0", "computed x1"),  # lsl x0, x1, #3
    ("203c040e", "x0", "computed v1"),  # umov w0, v1.s[0]
    ("020000d4", "x0", "input"),  # hvc #0
]


@pytest.mark.parametrize(("code", "register", "expected"), ARM64_SET)
def test_arm64_registers(code: str, register: str, expected: str) -> None:
    insn, flow = arm64(code), Arm64()
    assert register in {one.register for one in flow.written(insn)}
    assert short(flow.source(insn, register)) == expected


ARM64_STORED = [
    ("400000f9", ["copy x0:0+8"]),  # str x0, [x2]
    ("400000b9", ["copy x0:0+4"]),  # str w0, [x2]
    ("5f0000f9", ["constant"]),  # str xzr, [x2]
    ("fd7bbfa9", ["copy x29:0+8", "copy x30:0+8"]),  # stp x29, x30, [sp, #-16]!
    ("22fc00c8", ["copy x2:0+8"]),  # stlxr w0, x2, [x1]
    ("20fc9fc8", ["copy x0:0+8"]),  # stlr x0, [x1]
    ("2080a1f8", ["copy x1:0+8"]),  # swpa x1, x0, [x1]
]


@pytest.mark.parametrize(("code", "expected"), ARM64_STORED)
def test_arm64_stores(code: str, expected: list[str]) -> None:
    assert [short(source) for source in Arm64().stored(arm64(code))] == expected


@pytest.mark.parametrize("code", ["1f0016eb", "1f0001ea", "010000d4", "000000b4"])
def test_arm64_that_writes_nothing(code: str) -> None:
    """cmp x0, x22; tst x0, x1; svc #0; cbz x0."""
    assert Arm64().written(arm64(code)) == []


RISCV_SET = [
    ("03b50500", "a0", "load"),  # ld a0, 0(a1)
    ("03c50500", "a0", "load"),  # lbu a0, 0(a1)
    ("0a65", "a0", "load"),  # c.ldsp a0, 0x80(sp)
    ("07b50500", "fa0", "load"),  # fld fa0, 0(a1)
    ("2fa50510", "a0", "load"),  # lr.w a0, (a1)
    ("2f25b500", "a0", "load"),  # amoadd.w a0, a1, (a0)
    ("13850500", "a0", "copy a1:0+8"),  # mv a0, a1
    ("2e85", "a0", "copy a1:0+8"),  # c.mv a0, a1
    ("2284", "fp", "copy fp:0+8"),  # c.mv s0, s0
    ("1b850500", "a0", "copy a1:0+4"),  # sext.w a0, a1
    ("93020000", "t0", "constant"),  # mv t0, zero
    ("b7120000", "t0", "constant"),  # lui t0, 1
    ("97020000", "t0", "constant"),  # auipc t0, 0
    ("ef000000", "ra", "constant"),  # jal ra
    ("ef020000", "t0", "constant"),  # jal t0
    ("2e95", "a0", "computed a0 a1"),  # c.add a0, a1
    ("0505", "a0", "computed a0"),  # c.addi a0, 1
    ("0808", "a0", "computed sp"),  # c.addi4spn a0, sp, 0x10
    ("33855500", "a0", "computed a1 t0"),  # add a0, a1, t0
    ("13850500", "a0", "copy a1:0+8"),  # addi a0, a1, 0
    ("13851500", "a0", "computed a1"),  # addi a0, a1, 1
    ("732510c0", "a0", "input"),  # rdtime a0
    ("73252034", "a0", "input"),  # csrr a0, mcause
]


@pytest.mark.parametrize(("code", "register", "expected"), RISCV_SET)
def test_riscv_registers(code: str, register: str, expected: str) -> None:
    insn, flow = riscv(code), Riscv()
    assert [one.register for one in flow.written(insn)] == [register]
    assert short(flow.source(insn, register)) == expected


RISCV_STORED = [
    ("23b0a500", ["copy a0:0+8"]),  # sd a0, 0(a1)
    ("2aec", ["copy a0:0+8"]),  # c.sdsp a0, 0x18(sp)
    ("23b00500", ["constant"]),  # sd zero, 0(a1)
    ("27b0a500", ["copy fa0:0+8"]),  # fsd fa0, 0(a1)
    ("2fa5c518", ["copy a2:0+8"]),  # sc.w a0, a2, (a1)
    ("2fa5c508", ["copy a2:0+8"]),  # amoswap.w a0, a2, (a1)
    ("2fa5c500", ["computed a2 memory"]),  # amoadd.w a0, a2, (a1)
]


@pytest.mark.parametrize(("code", "expected"), RISCV_STORED)
def test_riscv_stores(code: str, expected: list[str]) -> None:
    assert [short(source) for source in Riscv().stored(riscv(code))] == expected


@pytest.mark.parametrize("code", ["23b0a500", "6300b500", "67800000", "8280", "73000000", "01a0"])
def test_riscv_that_writes_nothing(code: str) -> None:
    """sd a0, (a1); beq a0, a1; ret; c.jr ra; ecall; c.j."""
    assert Riscv().written(riscv(code)) == []


def test_without_capstone_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("dataflow_x86", "dataflow_arm64", "dataflow_riscv", "operands"):
        monkeypatch.delitem(sys.modules, f"retrograde.index.questions.{module}")
        monkeypatch.delattr(f"retrograde.index.questions.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "capstone", None)
    with pytest.raises(EnvironmentLacks, match=r"capstone") as error:
        dataflow_for("x86_64")
    assert "retrograde[index]" in error.value.remedy


@pytest.mark.parametrize("target", ["arm", "ppc64", "s390x"])
def test_other_targets(target: str) -> None:
    with pytest.raises(EnvironmentLacks, match=target):
        dataflow_for(target)
