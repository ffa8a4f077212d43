/*
 * What calls, address spaces and privilege are on each ISA: a row each, no code.
 *
 * Sources: Arm ARM (DDI 0487) C4 and C6; RISC-V unprivileged ISA, chapters on JAL/JALR and
 * compressed instructions, and privileged ISA; Power ISA 3.1B books I and III; the calling
 * conventions of each ISA's ELF ABI. Registers are named as in QEMU's target descriptions.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "probe.h"

static const char *const x86_64_general[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp",
                                             "rsi", "rdi", "r8",  "r9",  "r10", "r11",
                                             "r12", "r13", "r14", "r15"};
static const char *const i386_general[] = {"eax", "ecx", "edx", "ebx",
                                           "esp", "ebp", "esi", "edi"};
static const char *const aarch64_general[] = {
    "x0",  "x1",  "x2",  "x3",  "x4",  "x5",  "x6",  "x7",  "x8",  "x9",  "x10",
    "x11", "x12", "x13", "x14", "x15", "x16", "x17", "x18", "x19", "x20", "x21",
    "x22", "x23", "x24", "x25", "x26", "x27", "x28", "x29", "x30", "sp"};
static const char *const riscv_general[] = {
    "zero", "ra", "sp", "gp", "tp",  "t0",  "t1", "t2", "fp", "s1", "a0",
    "a1",   "a2", "a3", "a4", "a5",  "a6",  "a7", "s2", "s3", "s4", "s5",
    "s6",   "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6"};
static const char *const ppc_general[] = {
    "r0",  "r1",  "r2",  "r3",  "r4",  "r5",  "r6",  "r7",  "r8",  "r9",  "r10",
    "r11", "r12", "r13", "r14", "r15", "r16", "r17", "r18", "r19", "r20", "r21",
    "r22", "r23", "r24", "r25", "r26", "r27", "r28", "r29", "r30", "r31"};

static const struct opcode aarch64_opcodes[] = {
    {0xfc000000, 0x94000000, CONTROL_CALL},   /* bl */
    {0xfffffc1f, 0xd63f0000, CONTROL_CALL},   /* blr */
    {0xfefff800, 0xd63f0800, CONTROL_CALL},   /* blraa, blrab, blraaz, blrabz */
    {0xfffffc1f, 0xd65f0000, CONTROL_RETURN}, /* ret */
    {0xfffffbff, 0xd65f0bff, CONTROL_RETURN}, /* retaa, retab */
    {0xffffffff, 0xd69f03e0, CONTROL_SYSTEM}, /* eret */
    {0xfffffbff, 0xd69f0bff, CONTROL_SYSTEM}, /* eretaa, eretab */
    {0xff000000, 0xd4000000, CONTROL_SYSTEM}, /* svc, hvc, smc, brk, ... */
    {0xffffffe0, 0xd5182000, CONTROL_SYSTEM}, /* msr ttbr0_el1 */
    {0, 0, CONTROL_NONE},
};
static const struct opcode riscv_opcodes[] = {
    {0x00000fff, 0x000000ef, CONTROL_CALL},   /* jal ra */
    {0x00000fff, 0x000002ef, CONTROL_CALL},   /* jal t0 */
    {0x00007fff, 0x000000e7, CONTROL_CALL},   /* jalr ra */
    {0x00007fff, 0x000002e7, CONTROL_CALL},   /* jalr t0 */
    {0x000fffff, 0x00008067, CONTROL_RETURN}, /* jr ra */
    {0x000fffff, 0x00028067, CONTROL_RETURN}, /* jr t0 */
    {0x0000ffff, 0x00009002, CONTROL_SYSTEM}, /* c.ebreak */
    {0x0000f07f, 0x00009002, CONTROL_CALL},   /* c.jalr */
    {0x0000ffff, 0x00008082, CONTROL_RETURN}, /* c.jr ra */
    {0x0000ffff, 0x00008282, CONTROL_RETURN}, /* c.jr t0 */
    {0xffefffff, 0x00000073, CONTROL_SYSTEM}, /* ecall, ebreak */
    {0xdfffffff, 0x10200073, CONTROL_SYSTEM}, /* sret, mret */
    {0xfff0007f, 0x18000073, CONTROL_SYSTEM}, /* csrrw and the like of satp */
    {0, 0, CONTROL_NONE},
};
static const struct opcode ppc_opcodes[] = {
    {0xfc000001, 0x48000001, CONTROL_CALL},   /* bl, bla */
    {0xfc000001, 0x40000001, CONTROL_CALL},   /* bcl, bcla */
    {0xfc0007ff, 0x4c000021, CONTROL_CALL},   /* bclrl */
    {0xfc0007ff, 0x4c000421, CONTROL_CALL},   /* bcctrl */
    {0xfc0007ff, 0x4c000461, CONTROL_CALL},   /* bctarl */
    {0xfc0007ff, 0x4c000020, CONTROL_RETURN}, /* bclr */
    {0xfc000000, 0x44000000, CONTROL_SYSTEM}, /* sc, scv */
    {0xfc0007fe, 0x4c000024, CONTROL_SYSTEM}, /* rfid */
    {0xfc0007fe, 0x4c0000a4, CONTROL_SYSTEM}, /* rfscv */
    {0xfc0007fe, 0x4c000224, CONTROL_SYSTEM}, /* hrfid */
    {0xfc0007fe, 0x7c000124, CONTROL_SYSTEM}, /* mtmsr */
    {0xfc0007fe, 0x7c000164, CONTROL_SYSTEM}, /* mtmsrd */
    {0xfc1ffffe, 0x7c100ba6, CONTROL_SYSTEM}, /* mtspr pidr */
    {0, 0, CONTROL_NONE},
};

static const struct isa isas[] = {
    {.target = "x86_64",
     .general = x86_64_general,
     .generals = 16,
     .word = 8,
     .pc = "rip",
     .pushes = 8,
     .sp = 4,
     .arguments = {7, 6, 2, 1, 8, 9},
     .space = "cr3",
     .level = {"cs", 0, 3},
     .user = 3,
     .wide = {"efer", 10, 1},
     .wide_value = 1,
     .stack = "rsp",
     .frame = 40}, /* in protected mode, out of virtual-8086 mode */
    {.target = "i386",
     .general = i386_general,
     .generals = 8,
     .word = 4,
     .pc = "eip",
     .stack = "esp",
     .frame = 40},
    {.target = "m68k", .stack = "sp", .frame = 96}, /* 92 at most, of the 68020 */
    {.target = "arm", .pc = "pc"},
    {.target = "riscv32", .pc = "pc", .level = {"priv", 0, 3}, .halt = 0x10500073}, /* wfi */
    {.target = "aarch64",
     .opcodes = aarch64_opcodes,
     .general = aarch64_general,
     .generals = 32,
     .word = 8,
     .pc = "pc",
     .sp = 31,
     .arguments = {0, 1, 2, 3, 4, 5},
     .space = "TTBR0_EL1",
     .level = {"cpsr", 2, 3},
     .wide = {"cpsr", 4, 1},
     .saved = {{3, "ELR_EL3", "SPSR_EL3"}, {2, "ELR_EL2", "SPSR_EL2"}, {1, "ELR_EL1", "SPSR_EL1"}}},
    {.target = "riscv64",
     .opcodes = riscv_opcodes,
     .general = riscv_general,
     .generals = 32,
     .word = 8,
     .pc = "pc",
     .sp = 2,
     .arguments = {10, 11, 12, 13, 14, 15},
     .space = "satp",
     .level = {"priv", 0, 3},
     .halt = 0x10500073, /* wfi */
     .saved = {{3, "mepc", NULL}, {1, "sepc", NULL}}},
    {.target = "ppc64",
     .opcodes = ppc_opcodes,
     .general = ppc_general,
     .generals = 32,
     .word = 8,
     .sp = 1,
     .arguments = {3, 4, 5, 6, 7, 8},
     .space = "pidr",
     .level = {"msr", 14, 1},
     .user = 1,
     .order = "msr",
     .saved = {{0, "srr0", NULL}}},
};

const struct isa *isa;

void choose_isa(const char *target)
{
    static const struct isa unknown = {.target = ""};

    isa = &unknown;
    for (size_t i = 0; i < sizeof(isas) / sizeof(*isas); i++) {
        if (!strcmp(isas[i].target, target)) {
            isa = &isas[i];
        }
    }
}
