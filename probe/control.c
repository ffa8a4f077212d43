/*
 * Which instructions call, return, or may change address space or privilege, told by their
 * opcodes.
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

/* What the last instruction of a block does: only there can it be one of these. */
struct control control_of(const struct qemu_plugin_insn *insn)
{
    uint8_t code[LONGEST_X86 + 3] = {0};

    return x86_control(code, qemu_plugin_insn_data(insn, code, LONGEST_X86));
}
