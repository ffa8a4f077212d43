/*
 * Which instructions call, return, or may change address space or privilege, told by their
 * opcodes: on x86 here, elsewhere by the masks in isa.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "probe.h"

#define LONGEST_X86 15

/* Intel SDM volume 2, appendix A: one-byte opcodes that go through a gate or descriptor. */
static bool x86_far(uint8_t opcode)
{
    return opcode == 0x9a || opcode == 0xca || opcode == 0xcb || opcode == 0xcf ||
           opcode == 0xea || (opcode >= 0xcc && opcode <= 0xce) || opcode == 0xf1;
}

/* Two-byte opcodes behind 0f: syscall, sysret, sysenter, sysexit, mov to a control
 * register, wrmsr, rsm, and SVM's instructions. */
static bool x86_system(const uint8_t *code)
{
    switch (code[0]) {
    case 0x05:
    case 0x07:
    case 0x22:
    case 0x30:
    case 0x34:
    case 0x35:
    case 0xaa:
        return true;
    case 0x01:
        return code[1] >= 0xd8 && code[1] <= 0xdf;
    }
    return false;
}

/* What may change which physical memory a virtual address means, without changing address
 * space: invlpg, invpcid, and writes to ports (one of which is gate A20). */
static bool x86_mapping(const uint8_t *code)
{
    switch (code[0]) {
    case 0x0f:
        return (code[1] == 0x01 && (code[2] >> 3 & 7) == 7) ||
               (code[1] == 0x38 && code[2] == 0x82);
    case 0x6e:
    case 0x6f:
    case 0xe6:
    case 0xe7:
    case 0xee:
    case 0xef:
        return true;
    }
    return false;
}

static struct control x86_control(const uint8_t *code, size_t size)
{
    unsigned at = 0, modrm;

    while (at < size && (code[at] == 0x66 || code[at] == 0x67 || code[at] == 0xf0 ||
                         code[at] == 0xf2 || code[at] == 0xf3 || code[at] == 0x26 ||
                         code[at] == 0x2e || code[at] == 0x36 || code[at] == 0x3e ||
                         code[at] == 0x64 || code[at] == 0x65 ||
                         (code[at] >= 0x40 && code[at] <= 0x4f))) {
        at++; /* prefixes; below 64 bits 40 to 4f are whole instructions */
    }
    if (at == size) {
        return (struct control){CONTROL_NONE, 0};
    }
    modrm = code[at + 1] >> 3 & 7;
    if (code[at] == 0xe8 || (code[at] == 0xff && modrm == 2)) {
        return (struct control){CONTROL_CALL, 0};
    }
    if (code[at] == 0xc3 || code[at] == 0xc2) {
        return (struct control){CONTROL_RETURN,
                                code[at] == 0xc2 ? code[at + 1] | code[at + 2] << 8 : 0};
    }
    if (x86_far(code[at]) || (code[at] == 0xff && (modrm == 3 || modrm == 5)) ||
        (code[at] == 0x0f && x86_system(code + at + 1))) {
        return (struct control){CONTROL_SYSTEM, 0};
    }
    return (struct control){x86_mapping(code + at) ? CONTROL_MAPPING : CONTROL_NONE, 0};
}

/* Instructions of 2 or 4 bytes. */
static struct control fixed_control(const uint8_t *code, size_t size, bool big_endian)
{
    const struct opcode *opcode = isa->opcodes;
    uint32_t word = 0;

    for (size_t i = 0; i < size; i++) {
        word |= (uint32_t)code[big_endian ? size - 1 - i : i] << 8 * i;
    }
    while (opcode->mask && (word & opcode->mask) != opcode->value) {
        opcode++;
    }
    return (struct control){opcode->kind, 0};
}

struct control control_of(const struct qemu_plugin_insn *insn, bool big_endian)
{
    uint8_t code[LONGEST_X86 + 3] = {0};
    size_t size = qemu_plugin_insn_data(insn, code, LONGEST_X86);

    if (!isa->space) {
        return (struct control){CONTROL_NONE, 0};
    }
    if (!isa->opcodes) {
        return x86_control(code, size);
    }
    return size <= 4 ? fixed_control(code, size, big_endian) : (struct control){CONTROL_NONE, 0};
}

bool halts(const struct qemu_plugin_insn *insn)
{
    uint8_t code[4];

    return isa->halt && qemu_plugin_insn_data(insn, code, sizeof(code)) == sizeof(code) &&
           (code[0] | code[1] << 8 | code[2] << 16 | (uint32_t)code[3] << 24) == isa->halt;
}
