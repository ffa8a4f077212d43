/*
 * Where things are in this QEMU's structures, found when it runs.
 *
 * Nothing here is taken from one binary. QEMU describes some of its structures itself, for
 * snapshots (VMStateDescription: names with offsets); others are found by what its exported
 * functions do to memory of ours; tables of functions by the exported functions in them.
 * What is not as expected is refused.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#define _GNU_SOURCE
#include <link.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "scheduler.h"

#define CPU_BYTES 32768 /* more than a CPUState without its registers has */
#define STATE_WORDS 12  /* of timers_state: what is known to be in it lies before its timers */
#define TABLE_WORDS 64
#define AMOUNT (INT64_C(1) << 20)

OF_QEMU extern const char *const vmstate_cpu_common[];
OF_QEMU extern int64_t timers_state[];
OF_QEMU extern void icount_update(void *cpu);
OF_QEMU extern void cpu_exit(void *cpu);
OF_QEMU extern void tcg_kick_vcpu_thread(cpu_state *);
OF_QEMU extern void tcg_x86_init(void);
OF_QEMU extern void x86_translate_code(void);
OF_QEMU extern void breakpoint_handler(cpu_state *);
OF_QEMU extern bool x86_cpu_exec_halt(cpu_state *);

struct cpu_layout at;
volatile int64_t *executed;

/* The parts of QEMU's own program in memory, which pointers are looked for in. */
static struct {
    uintptr_t from, to;
} parts[32];
static unsigned part_count;

static int keep_parts(struct dl_phdr_info *info, size_t size, void *unused)
{
    (void)size, (void)unused;
    for (unsigned i = 0; i < info->dlpi_phnum && part_count < 32; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];

        if (header->p_type == PT_LOAD) {
            parts[part_count].from = info->dlpi_addr + header->p_vaddr;
            parts[part_count++].to = info->dlpi_addr + header->p_vaddr + header->p_memsz;
        }
    }
    return 1; /* the program comes first; its libraries do not matter */
}

static bool is_qemus(const void *pointer, size_t bytes)
{
    uintptr_t address = (uintptr_t)pointer;

    for (unsigned i = 0; i < part_count; i++) {
        if (address >= parts[i].from && address < parts[i].to &&
            parts[i].to - address >= bytes) {
            return true;
        }
    }
    return false;
}

static bool is_named(const void *const *pointer, const char *name)
{
    return is_qemus(pointer, sizeof(*pointer)) && is_qemus(*pointer, strlen(name) + 1) &&
           !strcmp(*pointer, name);
}

/* A description of a structure begins with its name; one of its first words leads to its
 * fields, another to descriptions of more. A field begins with its name
 * (include/migration/vmstate.h). */
static const void *const *led_to(const void *const *description, const char *name)
{
    for (unsigned i = 1; i < 16; i++) {
        const void *const *list = (const void *const *)description[i];

        if (is_named(list, name)) {
            return list; /* fields */
        }
        if (is_qemus(list, sizeof(*list)) && is_named((const void *const *)*list, name)) {
            return (const void *const *)*list; /* a description */
        }
    }
    return NULL;
}

/* Which word of a field's description is the offset: the one in which two fields of one type
 * differ, besides their names. */
static size_t offset_word(const void *const *one, const void *const *other)
{
    size_t found = 0;

    for (size_t i = 1; i < 8; i++) {
        if (one[i] != other[i]) {
            if (found || (size_t)one[i] >= CPU_BYTES || (size_t)other[i] >= CPU_BYTES) {
                return 0;
            }
            found = i;
        }
    }
    return found;
}

static bool find_described(void)
{
    const void *const *common = (const void *const *)vmstate_cpu_common;
    const void *const *halted, *const *interrupts = NULL, *const *more, *const *exception;
    size_t offset;

    if (!is_qemus(common, 16 * sizeof(*common)) || !is_named(common, "cpu_common")) {
        return false;
    }
    halted = led_to(common, "halted");
    more = led_to(common, "cpu_common/exception_index");
    exception = more ? led_to(more, "exception_index") : NULL;
    for (unsigned i = 1; halted && i < 32 && !interrupts; i++) {
        interrupts = is_named(halted + i, "interrupt_request") ? halted + i : NULL;
    }
    offset = interrupts ? offset_word(halted, interrupts) : 0;
    if (!offset || !exception) {
        return false;
    }
    at.halted = (size_t)halted[offset];
    at.interrupts = (size_t)interrupts[offset];
    at.exception = (size_t)exception[offset];
    return at.exception < CPU_BYTES;
}

/* What icount_update adds to the count of all, with `amount` in memory at `offset`. */
static int64_t update_with(uint8_t *cpu, size_t offset, int64_t amount, size_t size)
{
    int64_t before[STATE_WORDS], change = 0;

    memset(cpu, 0, CPU_BYTES);
    memcpy(cpu + offset, &amount, size);
    memcpy(before, timers_state, sizeof(before));
    icount_update(cpu);
    for (unsigned i = 0; i < STATE_WORDS; i++) {
        int64_t difference = timers_state[i] - before[i];

        if (difference == amount || difference == -amount) {
            if (executed && executed != &timers_state[i]) {
                return 0;
            }
            executed = &timers_state[i];
            change = difference;
        }
    }
    if (executed) {
        *executed = before[executed - timers_state];
    }
    return change;
}

/* Executed is the budget without what is left of it, which is in two fields, one of 64 bits
 * and the counter of 16 that translated code counts down: each shows in what the count makes
 * of it. */
static bool find_budget(uint8_t *cpu)
{
    unsigned budgets = 0, extras = 0, counters = 0;

    for (size_t i = 0; i < CPU_BYTES; i += sizeof(int64_t)) {
        int64_t change = update_with(cpu, i, AMOUNT, sizeof(int64_t));

        if (change == AMOUNT) {
            at.budget = i;
            budgets++;
        } else if (change == -AMOUNT) {
            at.extra = i;
            extras++;
        }
    }
    for (size_t i = 0; i < CPU_BYTES; i += sizeof(uint16_t)) {
        if ((i < at.extra || i >= at.extra + sizeof(int64_t)) &&
            update_with(cpu, i, 4711, sizeof(uint16_t)) == -4711) {
            at.low = i;
            counters++;
        }
    }
    return budgets == 1 && extras == 1 && counters == 1;
}

/*
 * Where kicking one vCPU asks all to leave, the byte that asks: what cpu_exit makes 1, beside
 * the upper half of the counter. Later QEMUs, which have a function of its own to kick one,
 * raise that half alone, and nothing has to be taken back.
 */
static bool find_request(uint8_t *cpu)
{
    unsigned requests = 0;

    if (tcg_kick_vcpu_thread) {
        return true;
    }
    memset(cpu, 0, CPU_BYTES);
    cpu_exit(cpu);
    memset(cpu + (at.low & ~(size_t)3), 0, sizeof(uint32_t));
    for (size_t i = 0; i < CPU_BYTES; i++) {
        if (cpu[i]) {
            at.request = i;
            requests++;
        }
    }
    return requests == 1 && cpu[at.request] == 1;
}

/* To be called before the machine is made, while nobody else looks at the count. */
bool find_layout(void)
{
    uint8_t *cpu = malloc(CPU_BYTES);
    bool found;

    if (!vmstate_cpu_common || !timers_state || !icount_update || !cpu_exit ||
        !x86_cpu_exec_halt || !x86_translate_code || !tcg_x86_init || !breakpoint_handler) {
        refuse("this QEMU does not export what it needs");
        free(cpu);
        return false;
    }
    dl_iterate_phdr(keep_parts, NULL);
    found = cpu && find_described() && find_budget(cpu) && find_request(cpu);
    free(cpu);
    if (!found) {
        refuse("the vCPUs of this QEMU are not made as expected");
    }
    return found;
}

/* The place of a pointer to `target` among `count` words, or `count`. */
static size_t place_of(void *const *words, size_t count, const void *target)
{
    size_t i = 0;

    while (i < count && words[i] != target) {
        i++;
    }
    return i;
}

/*
 * The target's table of functions for TCG, told by those of its functions that are exported.
 * It begins with `initialize` and `translate_code`; the two that are called when a vCPU
 * begins and ends a slice come right before `debug_excp_handler`, the fifth and sixth or, with
 * `get_tb_cpu_state` among them, the sixth and seventh.
 */
static void **find_table(void *const *class, size_t words, size_t *place, size_t *enter,
                         size_t *halt)
{
    for (size_t i = 0; i < words; i++) {
        void **table = class[i];
        size_t first, debug;

        if (!is_qemus(table, TABLE_WORDS * sizeof(*table))) {
            continue;
        }
        first = place_of(table, TABLE_WORDS, (void *)tcg_x86_init);
        debug = place_of(table, TABLE_WORDS, (void *)breakpoint_handler);
        *halt = place_of(table, TABLE_WORDS, (void *)x86_cpu_exec_halt);
        if ((debug == first + 6 || debug == first + 7) && *halt < TABLE_WORDS &&
            table[first + 1] == (void *)x86_translate_code && is_qemus(table[debug - 2], 1) &&
            is_qemus(table[debug - 1], 1)) {
            *place = i;
            *enter = debug - 2;
            return table;
        }
    }
    return NULL;
}

/* Have all vCPUs of this one's kind call `ours`; QEMU's own are kept in `theirs`. */
bool exchange_hooks(cpu_state *cpu, const struct hooks *ours, struct hooks *theirs)
{
    void **class = *(void ***)cpu; /* Object.class, which is first (include/qom/object.h) */
    void **table, **copy;
    size_t place, enter, halt;

    table = find_table(class, malloc_usable_size(class) / sizeof(*class), &place, &enter, &halt);
    copy = table ? malloc(TABLE_WORDS * sizeof(*copy)) : NULL;
    if (!copy) {
        return false;
    }
    memcpy(copy, table, TABLE_WORDS * sizeof(*copy));
    theirs->enter = (void (*)(cpu_state *))table[enter];
    theirs->leave = (void (*)(cpu_state *))table[enter + 1];
    theirs->halt = x86_cpu_exec_halt;
    copy[enter] = (void *)ours->enter;
    copy[enter + 1] = (void *)ours->leave;
    copy[halt] = (void *)ours->halt;
    class[place] = copy;
    return true;
}
