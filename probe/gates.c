/*
 * Which gate an interrupt or exception of x86 came through, and what it pushed. The vector is
 * not kept anywhere; but the handler that begins is that of a gate in the table, mostly of one.
 *
 * Sources: Intel SDM volume 3, 6.11 to 6.14 and 20.1.4.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "probe.h"

#define GATES 256
#define PAGE_FAULT 14
#define VIRTUAL_8086 (1u << 17)      /* of the flags, as the next two */
#define ALWAYS_SET 2u
#define NEVER_SET (1u << 3 | 1u << 5 | 1u << 15)
#define WITH_CODE UINT32_C(0x60227d00) /* vectors 8, 10 to 14, 17, 21, 29 and 30 */

static struct qemu_plugin_register *cr2, *cs, *pc;

struct gates {
    uint8_t bytes[16 * GATES];
    unsigned count, size; /* bytes of each */
};

struct gate {
    uint64_t offset;
    uint16_t selector;
    uint8_t type; /* 0: no gate to a handler in this task */
};

static bool read_table(struct gates *gates)
{
    uint64_t base, limit, bytes;

    gates->size = in_real_mode() ? 4 : in_long_mode() ? 16 : 8;
    if (!find_gates(&base, &limit)) {
        return false;
    }
    bytes = (uint64_t)GATES * gates->size;
    bytes = limit + 1 < bytes ? limit + 1 : bytes;
    gates->count = bytes / gates->size;
    if (!qemu_plugin_read_memory_vaddr(base, buffer, bytes)) {
        return false;
    }
    memcpy(gates->bytes, buffer->data, bytes);
    return true;
}

static struct gate gate_of(const struct gates *gates, unsigned vector)
{
    const uint8_t *at = gates->bytes + vector * gates->size;
    struct gate gate = {number_at(at, 2, false), number_at(at + 2, 2, false), 0xe};

    if (gates->size > 4) {
        gate.offset |= number_at(at + 6, 2, false) << 16;
        gate.type = at[5] & 0x80 ? at[5] & 0x1f : 0;
    }
    if (gates->size > 8) {
        gate.offset |= number_at(at + 8, 4, false) << 32;
    }
    if (gates->size == 8 && (gate.type & 0x1e) == 6) { /* of 16 bits */
        gate.offset &= 0xffff;
    } else if ((gate.type & 0x1e) != 0xe) {
        gate.type = 0;
    }
    return gate;
}

/* Find the gates that lead to the handler that begins; returns how many, and the last of them. */
static unsigned find_gate(const struct gates *gates, unsigned *vector, struct gate *found)
{
    bool readable;
    uint64_t offset = value_of(pc, &readable);
    unsigned selector = value_of(cs, &readable), matches = 0;

    for (unsigned i = 0; i < gates->count; i++) {
        struct gate gate = gate_of(gates, i);
        bool same = gates->size == 4 ? gate.selector == selector
                                     : (gate.selector & ~3u) == (selector & ~3u);

        if (gate.type && gate.offset == offset && same) {
            *vector = i;
            *found = gate;
            matches++;
        }
    }
    return matches;
}

static bool may_be_flags(uint64_t value)
{
    return value & ALWAYS_SET && !(value & NEVER_SET);
}

/* Whether an error code lies below the instruction pointer, at `top`, in protected mode: what is
 * behind that is a selector and flags, and no selector with a level that has them looks so. */
static bool is_coded(uint64_t top, unsigned word, bool *certain)
{
    uint64_t words[4];
    bool readable = true, with, without;

    for (unsigned i = 0; i < 4 && readable; i++) {
        words[i] = memory_value(top + word * i, word, &readable);
    }
    *certain = readable;
    if (!readable) {
        return false;
    }
    without = words[1] <= 0xffff && may_be_flags(words[2]);
    with = words[2] <= 0xffff && may_be_flags(words[3]);
    *certain = with != without;
    return with;
}

static void tell_frame(struct trap *trap, uint64_t top, unsigned word, bool coded)
{
    uint64_t ip, selector, flags;
    bool readable = true;

    if (coded) {
        tell(trap, TRAP_CODE, memory_value(top, word, &readable) & UINT32_MAX);
        top += word;
    }
    ip = memory_value(top, word, &readable);
    selector = memory_value(top + word, word, &readable) & 0xffff;
    flags = memory_value(top + 2 * word, word, &readable);
    if (!readable) {
        return;
    }
    if (in_real_mode() || (word == 4 && flags & VIRTUAL_8086)) {
        tell(trap, TRAP_PC, (selector << 4) + ip);
        tell(trap, TRAP_PRIVILEGE, in_real_mode() ? 0 : 3);
    } else {
        tell(trap, TRAP_PC, ip);
        tell(trap, TRAP_PRIVILEGE, selector & 3);
    }
}

static bool is_called(uint64_t behind, unsigned vector)
{
    bool readable;

    return memory_value(behind - 2, 2, &readable) == (0xcd | vector << 8) && readable;
}

/* Tell why the handler that begins does, as far as that is certain. */
void tell_x86(struct trap *trap)
{
    static struct gates gates;
    struct gate gate;
    unsigned vector, matches, word = 8;
    bool coded = false, certain = true, readable;
    uint64_t top;

    matches = read_table(&gates) ? find_gate(&gates, &vector, &gate) : 0;
    if (!matches) {
        return; /* not through a gate: an SMI, a reset, a task gate */
    }
    if (in_real_mode()) {
        top = stack_top();
        word = 2;
    } else if (in_long_mode()) {
        top = stack_top();
        coded = !(top & 8); /* 5 words end on a boundary of 16 bytes, or 6 with it */
    } else if (find_frame(&top)) {
        word = gate.type & 8 ? 4 : 2;
        coded = is_coded(top, word, &certain);
    } else {
        certain = false;
    }
    if (certain) {
        tell_frame(trap, top, word, coded);
    }
    if (matches == 1) {
        tell(trap, TRAP_VECTOR, vector);
        if (trap->known & TRAP_PC && !coded && is_called(trap->pc, vector)) {
            trap->known |= TRAP_CALLED;
        }
        if (vector == PAGE_FAULT && certain && coded) {
            tell(trap, TRAP_ADDRESS, value_of(cr2, &readable));
        }
    }
}

void take_over_gates(glib_array *known)
{
    cr2 = find_register(known, "cr2");
    cs = find_register(known, "cs");
    pc = find_register(known, isa->pc);
}
