/*
 * Registers: conditions on them, and the log of their changes.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <malloc.h>
#include <string.h>

#include "probe.h"

#define MAX_CANDIDATES 16

/* x86 keeps its arithmetic flags unevaluated; see find_env. */
extern uint32_t helper_read_eflags(void *env) __attribute__((weak));

static struct qemu_plugin_register *registers[MAX_REGISTERS];
static uint8_t last_value[MAX_REGISTERS][MAX_REGISTER_BYTES];
static int last_size[MAX_REGISTERS];

#define MAX_PLACES 64 /* of the pages looked at, at most */

static uint64_t last_place[MAX_PLACES];
static bool knows_places;

static bool is_x86_64, is_x86;
static struct qemu_plugin_register *pc, *eflags, *efer, *cr0, *ss, *general[MAX_GENERAL];
static struct qemu_plugin_register *space, *level, *wide, *order, *bank[3];
static struct qemu_plugin_register *saved_pc[MAX_SAVED], *saved_status[MAX_SAVED];
static const uint8_t *env_candidate;
const uint8_t *env;
const uint8_t *pc_at;
bool asks_pc;
static uint8_t candidate_values[MAX_GENERAL * 8];

uint64_t number_at(const uint8_t *bytes, unsigned size, bool big_endian)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < size && i < 8; i++) {
        value |= (uint64_t)bytes[big_endian ? size - 1 - i : i] << 8 * i;
    }
    return value;
}

/* What is in `buffer`, in the target's usual byte order. */
static uint64_t buffer_value(unsigned size)
{
    return number_at(buffer->data, size, page->big_endian);
}

/* Read a register into `buffer`; returns its size, 0 for none. */
static unsigned read_register(struct qemu_plugin_register *handle)
{
    g_byte_array_set_size(buffer, 0);
    if (handle) {
        qemu_plugin_read_register(handle, buffer);
    }
    return buffer->len;
}

uint64_t value_of(struct qemu_plugin_register *handle, bool *readable)
{
    unsigned size = read_register(handle);

    *readable = size > 0;
    return *readable ? buffer_value(size) : 0;
}

/* Whether registers and code are big-endian now: PowerPC switches while it runs, and QEMU's
 * view of all registers with it, that of the switch included (Isa.order_at in isa.py). */
bool is_big_endian(void)
{
    bool readable;
    uint64_t value = order ? value_of(order, &readable) : 0;

    return page->big_endian && !(value >> 56 & 1);
}

/* The value of a register of 8 bytes, whatever the byte order is now. */
uint64_t ordered_value(struct qemu_plugin_register *handle)
{
    bool readable;
    uint64_t value = value_of(handle, &readable);

    return page->big_endian && !is_big_endian() ? __builtin_bswap64(value) : value;
}

uint64_t memory_value(uint64_t address, unsigned size, bool *readable)
{
    bool big_endian = is_big_endian();

    *readable = qemu_plugin_read_memory_vaddr(address, buffer, size);
    return *readable ? number_at(buffer->data, size, big_endian) : 0;
}

/* x86_64 only: whether deliveries push 8-byte words (EFER.LMA). */
bool in_long_mode(void)
{
    bool readable;

    return is_x86_64 && value_of(efer, &readable) >> 10 & 1;
}

/* x86 only: whether deliveries push 2-byte words through the real mode's vectors. */
bool in_real_mode(void)
{
    bool readable;
    uint64_t value = value_of(cr0, &readable);

    return is_x86 && readable && !(value & 1);
}

/* x86 only: the linear address of the stack's top, in long and in real mode. */
uint64_t stack_top(void)
{
    bool readable;
    uint64_t offset = value_of(general[4], &readable);

    return in_real_mode() ? (value_of(ss, &readable) << 4) + (offset & 0xffff) : offset;
}

/* The vCPU whose thread this is, or NULL: part of no plugin API, as icount_get_raw is not. */
void *this_vcpu(void)
{
    static void *vcpu; /* there is only one */

    if (!vcpu) {
        void **slot = dlsym(RTLD_DEFAULT, "current_cpu");
        vcpu = slot ? *slot : NULL;
    }
    return vcpu;
}

uint64_t address_space(void)
{
    return ordered_value(space);
}

unsigned privilege(void)
{
    bool readable;

    if (is_x86_64 && in_real_mode()) {
        return 0;
    }
    if (is_x86_64 && value_of(eflags, &readable) >> 17 & 1) { /* virtual-8086 mode */
        return 3;
    }
    return ordered_value(level) >> isa->level.shift & isa->level.mask;
}

/* Whether calls are told in the code that runs now. */
bool in_wide_code(void)
{
    return !wide || (ordered_value(wide) >> isa->wide.shift & isa->wide.mask) == isa->wide_value;
}

/* Whether the instruction at `at`, being translated, will run wherever its page is mapped, and
 * gdb's view of the pc tells where. It does not on x86 where code has a segment's base, and
 * for AArch32 on aarch64 it is another register: then it is not where the block begins. */
bool runs_anywhere(uint64_t at)
{
    return isa->pc && at - current_pc() < PAGE_BYTES;
}

/* Gdb's view of the pc. */
uint64_t viewed_pc(void)
{
    return ordered_value(pc);
}

/* Not on x86: where the first of `frames` interrupts or exceptions at once was taken. Of two
 * the second is of a higher level, and the first left its own registers behind. */
void find_interrupted(uint64_t handler, unsigned frames, uint64_t *pc, uint64_t *sp)
{
    unsigned now = privilege();

    *pc = handler;
    *sp = general_register(isa->sp);
    for (unsigned i = 0; i < MAX_SAVED && frames; i++) {
        uint64_t status;

        if (!saved_pc[i] || isa->saved[i].level > now) {
            continue;
        }
        *pc = ordered_value(saved_pc[i]);
        if (saved_status[i]) { /* AArch64: each level has its own stack pointer, or EL0's */
            status = ordered_value(saved_status[i]);
            if (!(status & 1)) {
                *sp = ordered_value(bank[0]);
            } else if ((status >> 2 & 3) != now) {
                *sp = ordered_value(bank[(status >> 2 & 3) % 3]);
            }
        }
        frames--;
    }
}

/*
 * The general registers lie in QEMU's CPU state one after the other, current_cpu points to
 * it, and they follow at a distance that differs by build, so they are found by their
 * contents: the place that holds all of them at two moments with different values is it.
 * On x86 it is also where the state begins, which complete_flags needs.
 */
static void find_env(void)
{
    void *vcpu = this_vcpu();
    const uint8_t *memory = vcpu;
    size_t bytes = vcpu ? malloc_usable_size(vcpu) : 0;
    size_t word = isa->word, size = word * isa->generals;
    uint8_t values[MAX_GENERAL * 8];
    unsigned matches = 0;

    for (size_t i = 0; i < isa->generals; i++) {
        uint64_t value = word == 8 ? ordered_value(general[i]) : 0;
        bool readable;

        if (word == 4) {
            uint32_t narrow = value_of(general[i], &readable);
            memcpy(values + i * word, &narrow, word);
        } else {
            memcpy(values + i * word, &value, word);
        }
    }
    if (env_candidate && memcmp(values, candidate_values, size) &&
        !memcmp(values, env_candidate, size)) {
        env = env_candidate;
        return;
    }
    env_candidate = NULL;
    for (size_t at = 0; at + size <= bytes; at += word) {
        if (!memcmp(memory + at, values, size)) {
            env_candidate = memory + at;
            matches++;
        }
    }
    if (matches != 1) {
        env_candidate = NULL;
    }
    memcpy(candidate_values, values, size);
}

/* Find the one place behind the general registers that holds the pc at two moments. */
static const uint8_t *find_pc(void)
{
    static const uint8_t *candidates[MAX_CANDIDATES];
    static unsigned total;
    static uint64_t first;
    const uint8_t *end = (uint8_t *)this_vcpu() + malloc_usable_size(this_vcpu());
    uint64_t value = current_pc(), held;
    unsigned left = 0;

    if (total && value == first) {
        return NULL;
    }
    for (unsigned i = 0; i < total; i++) {
        memcpy(&held, candidates[i], sizeof(held));
        if (held == value) {
            candidates[left++] = candidates[i];
        }
    }
    if (left == 1) {
        return candidates[0];
    }
    first = value;
    total = 0;
    for (const uint8_t *at = env; at + sizeof(held) <= end && total < MAX_CANDIDATES; at += 8) {
        memcpy(&held, at, sizeof(held));
        if (held == value) {
            candidates[total++] = at;
        }
    }
    return NULL;
}

/* In 64-bit code, where addresses are offsets too, have the pc of each block asked for: in
 * place as soon as that is known. */
void track_pc(void)
{
    static const uint8_t *place;

    asks_pc = isa->pc && in_wide_code();
    if (asks_pc && !env) {
        find_env();
    }
    if (asks_pc && env && !place) {
        place = find_pc();
    }
    pc_at = asks_pc ? place : NULL;
}

/* A general register by its number in isa.c. Right where a block begins. */
uint64_t general_register(unsigned number)
{
    uint64_t value;

    if (!env) {
        find_env();
    }
    if (!env) {
        return ordered_value(general[number]);
    }
    memcpy(&value, env + number * sizeof(value), sizeof(value));
    return value;
}

/* QEMU's gdb view of eflags lacks the arithmetic flags while translated code runs: they are
 * computed on demand from other fields of the CPU's state (target/i386/gdbstub.c,
 * helper_read_eflags). Builds that export current_cpu also export the helper. */
static void complete_flags(void)
{
    const uint32_t arithmetic = 0xcd5; /* CF PF AF ZF SF DF OF */
    uint32_t flags;

    if (!helper_read_eflags || !env) {
        page->registers_doubtful = 1;
        return;
    }
    memcpy(&flags, buffer->data, 4);
    flags = (flags & ~arithmetic) | (helper_read_eflags((void *)env) & arithmetic);
    memcpy(buffer->data, &flags, 4);
}

uint64_t register_value(uint32_t index, bool *readable)
{
    bool big_endian = is_big_endian();
    unsigned size = read_register(registers[index]);

    if (size == 4 && registers[index] == eflags) {
        complete_flags();
    }
    *readable = size > 0;
    return *readable ? number_at(buffer->data, size, big_endian) : 0;
}

/* Copy a register as gdb has it; returns its size, 0 when it does not fit. */
unsigned copy_register(uint32_t index, uint8_t *to, unsigned room)
{
    unsigned size = read_register(registers[index]);

    if (size > room) {
        return 0;
    }
    memcpy(to, buffer->data, size);
    return size;
}

static void learn_flags(unsigned vcpu, void *unused)
{
    (void)vcpu, (void)unused;
    if (!env) {
        find_env();
    }
}

/* Where conditions read the flags, find out where QEMU keeps them before one does. */
void look_for_flags(struct qemu_plugin_insn *insn)
{
    const struct condition *conditions = table(&page->conditions);

    for (size_t i = 0; !env && i < page->conditions.total; i++) {
        if (!conditions[i].in_memory && registers[conditions[i].reg] == eflags && eflags) {
            qemu_plugin_register_vcpu_insn_exec_cb(insn, learn_flags, CALLBACK_READS_REGS, NULL);
            return;
        }
    }
}

/* Log where the pages looked at lie, which may change without their tables being written. */
static void put_places(uint64_t position)
{
    const uint64_t *seen = table(&page->seen);

    for (uint16_t i = 0; i < page->seen.total && i < MAX_PLACES; i++) {
        uint64_t place = physical_address(seen[i]);
        struct change *change;

        if (knows_places && place == last_place[i]) {
            continue;
        }
        last_place[i] = place;
        change = ring_slot(&page->changes, sizeof(*change));
        *change = (struct change){.position = position, .reg = page->registers.total + i,
                                  .size = sizeof(place)};
        memcpy(change->bytes, &place, sizeof(place));
    }
    knows_places = true;
}

static void put_changes(uint64_t position)
{
    if (eflags && !env) {
        find_env();
    }
    if (!recording_at(position)) {
        return;
    }
    for (uint16_t reg = 0; reg < page->registers.total; reg++) {
        int size = read_register(registers[reg]);

        if (size == 4 && registers[reg] == eflags) {
            complete_flags();
        }
        if (size <= 0 || size > MAX_REGISTER_BYTES ||
            (size == last_size[reg] && !memcmp(last_value[reg], buffer->data, size))) {
            continue;
        }
        for (int at = 0; at < size; at += 16) {
            int part = size - at < 16 ? size - at : 16;
            struct change *change;

            if (size == last_size[reg] &&
                !memcmp(last_value[reg] + at, buffer->data + at, part)) {
                continue;
            }
            change = ring_slot(&page->changes, sizeof(*change));
            *change = (struct change){.position = position, .reg = reg, .slice = at / 16,
                                      .size = part};
            memcpy(change->bytes, buffer->data + at, part);
        }
        memcpy(last_value[reg], buffer->data, size);
        last_size[reg] = size;
    }
    if (page->features & FEATURE_MEMORY && can_place()) {
        put_places(position);
    }
}

static void on_registers(unsigned vcpu, void *unused)
{
    (void)vcpu, (void)unused;
    put_changes(*count);
}

static void on_suspect_registers(unsigned vcpu, void *unused)
{
    (void)vcpu, (void)unused;
    put_changes(*count + attempt);
}

/* Have every change of the registers asked for logged from this instruction on. */
void log_registers(struct qemu_plugin_insn *insn, bool suspect)
{
    qemu_plugin_register_vcpu_insn_exec_cb(insn, suspect ? on_suspect_registers : on_registers,
                                           CALLBACK_READS_REGS, NULL);
}

struct qemu_plugin_register *find_register(glib_array *list, const char *name)
{
    unsigned size = g_array_get_element_size(list);

    for (unsigned i = 0; name && i < list->len; i++) {
        const plugin_register_descriptor *known = (void *)(list->data + i * size);

        if (!strncmp(known->name, name, NAME_BYTES)) {
            return known->handle;
        }
    }
    return NULL;
}

/* Look up the registers Python names and those of the ISA, on the vCPU's thread. */
void take_over_registers(void)
{
    static const char *const banked[3] = {"SP_EL0", "SP_EL1", "SP_EL2"};
    const char(*names)[NAME_BYTES] = table(&page->registers);
    static glib_array *known; /* QEMU makes a new list each time, for the caller to keep */

    known = known ? known : qemu_plugin_get_registers();
    is_x86_64 = isa->space && !isa->opcodes;
    page->unknown_register = 0;
    page->registers_doubtful = 0;
    memset(last_size, 0, sizeof(last_size));
    knows_places = false;
    for (size_t i = 0; i < isa->generals; i++) {
        general[i] = find_register(known, isa->general[i]);
    }
    pc = find_register(known, isa->pc);
    eflags = find_register(known, "eflags");
    efer = find_register(known, "efer");
    cr0 = find_register(known, "cr0");
    ss = find_register(known, "ss");
    is_x86 = efer != NULL;
    take_over_frames(known);
    take_over_gates(known);
    take_over_traps(known);
    space = find_register(known, isa->space);
    level = find_register(known, isa->level.name);
    wide = find_register(known, isa->wide.name);
    order = find_register(known, isa->order);
    for (size_t i = 0; i < MAX_SAVED; i++) {
        saved_pc[i] = find_register(known, isa->saved[i].pc);
        saved_status[i] = find_register(known, isa->saved[i].status);
        bank[i] = find_register(known, banked[i]);
    }
    for (uint32_t i = 0; i < page->registers.total; i++) {
        registers[i] = find_register(known, names[i]);
        if (!registers[i] && !page->unknown_register) {
            page->unknown_register = i + 1;
        }
    }
}
