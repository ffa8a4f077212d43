/*
 * Why an interrupt or exception was taken: what the processor leaves behind, read where the
 * handler begins. What is not certain is not told: where QEMU went on somewhere else than in a
 * handler, as after a call of its own firmware, nothing is.
 *
 * Sources: Arm ARM D1 and D17 (AArch64), B1 and B3 of DDI 0406C (AArch32); RISC-V privileged
 * ISA, the CSRs of traps; Power ISA 3.1B book III, chapter 7. For x86 see gates.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "probe.h"

/* Registers of one level that a handler may run at: named as QEMU's target description does. */
struct names {
    const char *base, *code, *address, *pc, *status;
};
struct handles {
    struct qemu_plugin_register *base, *code, *address, *pc, *status;
};

enum family { OTHER, X86, ARM64, ARM32, RISCV, POWER };

#define SETS 3

/* By level of the handler, 1 to 3; of Arm's 32-bit state data aborts, then prefetch aborts; of
 * Power what an interrupt uses, then what one of a hypervisor's does. */
static const struct {
    const char *target;
    enum family family;
    struct names sets[SETS];
} families[] = {
    {"x86_64", X86, {{NULL}}},
    {"i386", X86, {{NULL}}},
    {"aarch64",
     ARM64,
     {{"VBAR", "ESR_EL1", "FAR_EL1", "ELR_EL1", "SPSR_EL1"},
      {"VBAR_EL2", "ESR_EL2", "FAR_EL2", "ELR_EL2", "SPSR_EL2"},
      {"VBAR_EL3", "ESR_EL3", "FAR_EL3", "ELR_EL3", "SPSR_EL3"}}},
    {"arm",
     ARM32,
     {{"VBAR", "DFSR", "DFAR", "lr", "cpsr"}, {"VBAR", "IFSR", "IFAR", "lr", "cpsr"}}},
    {"riscv64",
     RISCV,
     {{"stvec", "scause", "stval", "sepc", "sstatus"},
      {NULL},
      {"mtvec", "mcause", "mtval", "mepc", "mstatus"}}},
    {"riscv32",
     RISCV,
     {{"stvec", "scause", "stval", "sepc", "sstatus"},
      {NULL},
      {"mtvec", "mcause", "mtval", "mepc", "mstatus"}}},
    {"ppc64",
     POWER,
     {{"msr", "dsisr", "dar", "srr0", "srr1"}, {"msr", "hdsisr", "hdar", "hsrr0", "hsrr1"}}},
};

static enum family family;
static struct handles sets[SETS];

void tell(struct trap *trap, enum trap_flag what, uint64_t value)
{
    uint64_t *const fields[] = {&trap->vector, &trap->code, &trap->address, &trap->pc,
                                &trap->privilege};

    for (unsigned i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
        if (what == 1u << i) {
            *fields[i] = value;
        }
    }
    trap->known |= what;
}

static bool has_all(const struct handles *set)
{
    return set->base && set->code && set->address && set->pc && set->status;
}

/* The level that a saved program status says it was. */
static unsigned arm64_level(uint64_t status)
{
    if (!(status >> 4 & 1)) {
        return status >> 2 & 3;
    }
    switch (status & 15) { /* AArch32: user, monitor, hypervisor or another mode */
    case 0:
        return 0;
    case 6:
        return 3;
    case 10:
        return 2;
    default:
        return 1;
    }
}

static void tell_arm64(struct trap *trap, uint64_t pc)
{
    unsigned level = privilege();
    const struct handles *set = &sets[(level + SETS - 1) % SETS];
    uint64_t offset, syndrome, status;
    unsigned class;

    if (!level || !in_wide_code() || !has_all(set)) {
        return;
    }
    offset = pc - ordered_value(set->base);
    if (offset >= 0x800 || offset % 0x80) {
        return;
    }
    status = ordered_value(set->status);
    tell(trap, TRAP_VECTOR, offset);
    tell(trap, TRAP_PC, ordered_value(set->pc));
    tell(trap, TRAP_PRIVILEGE, arm64_level(status));
    if (offset & 0x80) { /* IRQ and FIQ leave the syndrome alone */
        return;
    }
    syndrome = ordered_value(set->code);
    class = syndrome >> 26 & 0x3f;
    tell(trap, TRAP_CODE, syndrome);
    if (offset & 0x100) {
        return; /* SError */
    }
    switch (class) {
    case 0x20: case 0x21: case 0x24: case 0x25: /* aborts, unless FnV says it is not valid */
        if (syndrome >> 10 & 1) {
            return;
        } /* fall through */
    case 0x22: case 0x34: case 0x35: /* pc alignment, watchpoint */
        tell(trap, TRAP_ADDRESS, ordered_value(set->address));
    }
}

/* Whether a fault status of AArch32 is of an abort that came late, whose address is not known. */
static bool is_late(uint64_t status)
{
    unsigned code = (status & 15) | (status >> 6 & 16);

    return status >> 9 & 1 ? (status & 0x3f) == 0x11 || (status & 0x3f) == 0x19
                           : code == 0x16 || code == 0x18;
}

static void tell_arm32(struct trap *trap, uint64_t pc)
{
    static const uint8_t modes[8] = {[1] = 0x1b, [2] = 0x13, [3] = 0x17, [4] = 0x17,
                                     [6] = 0x12, [7] = 0x11};
    static const uint8_t behind[8] = {[3] = 4, [4] = 8, [6] = 4, [7] = 4};
    unsigned number = pc >> 2 & 7;
    const struct handles *set = &sets[number == 3];
    uint64_t base = pc & ~UINT64_C(31), status;
    bool readable;

    if (!set->pc || !set->status || !modes[number] || pc & 3 ||
        (value_of(set->status, &readable) & 0x1f) != modes[number] ||
        (base != value_of(set->base, &readable) && base != 0xffff0000)) {
        return;
    }
    tell(trap, TRAP_VECTOR, number * 4);
    if (number > 1) { /* how far behind an undefined instruction it points depends on its size */
        tell(trap, TRAP_PC, (uint32_t)(value_of(set->pc, &readable) - behind[number]));
    }
    if ((number == 3 || number == 4) && set->code && set->address) {
        status = value_of(set->code, &readable);
        tell(trap, TRAP_CODE, status);
        if (!is_late(status)) {
            tell(trap, TRAP_ADDRESS, value_of(set->address, &readable));
        }
    }
}

static void tell_riscv(struct trap *trap, uint64_t pc)
{
    /* misaligned, access and page faults of fetches, loads and stores, guest's page faults */
    const uint64_t with_address = 0xb0b0f3;
    const uint64_t with_instruction = 1 << 2 | 1 << 22; /* illegal and virtual instruction */
    unsigned level = privilege();
    const struct handles *set = &sets[(level + SETS - 1) % SETS];
    bool is_late, readable;
    uint64_t cause, base, status;
    unsigned bits;

    if (!level || !has_all(set)) {
        return;
    }
    cause = value_of(set->code, &readable);
    bits = 8 * buffer->len;
    is_late = cause >> (bits - 1) & 1; /* an interrupt */
    cause &= ~(UINT64_C(1) << (bits - 1));
    base = value_of(set->base, &readable);
    if (pc != (base & ~UINT64_C(3)) + (base & 1 && is_late ? 4 * cause : 0)) {
        return;
    }
    status = value_of(set->status, &readable);
    tell(trap, TRAP_VECTOR, cause);
    tell(trap, TRAP_PC, value_of(set->pc, &readable));
    tell(trap, TRAP_PRIVILEGE, level == 3 ? status >> 11 & 3 : status >> 8 & 1);
    if (!is_late && cause < 64 && with_address >> cause & 1) {
        tell(trap, TRAP_ADDRESS, value_of(set->address, &readable));
    } else if (!is_late && cause < 64 && with_instruction >> cause & 1) {
        tell(trap, TRAP_CODE, value_of(set->address, &readable));
    }
}

/* The offset of a Power vector, 0 where there is none; Power ISA book III, 7.5 and the LPCR's
 * AIL. */
static unsigned power_vector(uint64_t pc)
{
    static const uint16_t others[] = {0x380, 0x480, 0x980, 0xe20, 0xe40, 0xe60, 0xe80, 0xea0,
                                      0xf20, 0xf40, 0xf60, 0xf80};
    uint64_t base = pc & ~UINT64_C(0x1fff);
    unsigned offset = pc & 0x1fff;

    if (base && base != 0x18000 && base != UINT64_C(0xc000000000004000)) {
        return 0;
    }
    for (unsigned i = 0; i < sizeof(others) / sizeof(*others); i++) {
        if (offset == others[i]) {
            return offset;
        }
    }
    return offset % 0x100 || offset > 0xf00 ? 0 : offset;
}

static void tell_power(struct trap *trap, uint64_t pc)
{
    unsigned vector = power_vector(pc);
    bool is_higher = vector == 0x980 || (vector >= 0xe00 && vector < 0xf00) || vector == 0xf80;
    const struct handles *set = &sets[is_higher];
    uint64_t status, saved;

    if (!vector || !has_all(set)) {
        return;
    }
    tell(trap, TRAP_VECTOR, vector);
    if (vector == 0x500 && ordered_value(set->base) >> 60 & 1) {
        return; /* which pair of registers it uses is for the LPCR to say */
    }
    saved = ordered_value(set->pc);
    status = ordered_value(set->status);
    tell(trap, TRAP_PC, saved);
    tell(trap, TRAP_PRIVILEGE, status >> 14 & 1);
    switch (vector) {
    case 0x300: case 0xe00:
        tell(trap, TRAP_CODE, ordered_value(set->code) & UINT32_MAX); /* fall through */
    case 0x380: case 0x600:
        tell(trap, TRAP_ADDRESS, ordered_value(set->address));
        break;
    case 0x400:
        tell(trap, TRAP_CODE, status & 0x783f0000); /* fall through */
    case 0x480:
        tell(trap, TRAP_ADDRESS, saved);
        break;
    case 0x700:
        tell(trap, TRAP_CODE, status & 0x783f0000);
    }
}

/* Log why the delivery was made that is number `number` in the log, the last one before the
 * handler at `pc` begins. */
void record_trap(uint64_t position, uint64_t pc, uint64_t number)
{
    struct trap trap = {.position = position, .number = number};

    if (!(page->features & FEATURE_TRAPS) || !recording_at(position)) {
        return;
    }
    if (page->traps.total == page->traps.capacity) {
        page->overflows++;
        return;
    }
    switch (family) {
    case X86:
        tell_x86(&trap);
        break;
    case ARM64:
        tell_arm64(&trap, pc);
        break;
    case ARM32:
        tell_arm32(&trap, pc);
        break;
    case RISCV:
        tell_riscv(&trap, pc);
        break;
    case POWER:
        tell_power(&trap, pc);
        break;
    case OTHER:
        break;
    }
    ((struct trap *)table(&page->traps))[page->traps.total++] = trap;
}

/* Arm's first base register has another name since QEMU 11.1, on 32-bit targets too. */
static struct qemu_plugin_register *find_base(glib_array *known, const char *name)
{
    struct qemu_plugin_register *base = find_register(known, name);

    return base || !name || strcmp(name, "VBAR") ? base : find_register(known, "VBAR_EL1");
}

void take_over_traps(glib_array *known)
{
    family = OTHER;
    for (unsigned i = 0; i < sizeof(families) / sizeof(*families); i++) {
        if (strcmp(families[i].target, isa->target)) {
            continue;
        }
        family = families[i].family;
        for (unsigned set = 0; set < SETS; set++) {
            const struct names *names = &families[i].sets[set];

            sets[set] = (struct handles){
                find_base(known, names->base), find_register(known, names->code),
                find_register(known, names->address), find_register(known, names->pc),
                find_register(known, names->status)};
        }
    }
    if (find_register(known, "xpsr")) {
        family = OTHER; /* M-profile Arm: QEMU's log has its returns from handlers, too */
    }
}
