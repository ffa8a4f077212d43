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
OF_QEMU extern bool x86_cpu_exec_halt(cpu_state *);
OF_QEMU extern bool x86_cpu_exec_interrupt(cpu_state *, int);
OF_QEMU extern void x86_cpu_do_interrupt(cpu_state *);

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
 * fields, another to descriptions of more. Fields begin with their name, a word for errors
 * and the offset (include/migration/vmstate.h). */
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

static bool find_described(void)
{
    const void *const *common = (const void *const *)vmstate_cpu_common;
    const void *const *halted, *const *interrupts = NULL, *const *more, *const *exception;

    if (!is_qemus(common, 16 * sizeof(*common)) || !is_named(common, "cpu_common")) {
        return false;
    }
    halted = led_to(common, "halted");
    more = led_to(common, "cpu_common/exception_index");
    exception = more ? led_to(more, "exception_index") : NULL;
    for (unsigned i = 1; halted && i < 32 && !interrupts; i++) {
        interrupts = is_named(halted + i, "interrupt_request") ? halted + i : NULL;
    }
    if (!interrupts || !exception) {
        return false;
    }
    at.halted = (size_t)halted[2];
    at.interrupts = (size_t)interrupts[2];
    at.exception = (size_t)exception[2];
    return at.halted < CPU_BYTES && at.interrupts < CPU_BYTES && at.exception < CPU_BYTES;
}

/* cpu_exit asks a vCPU to leave and raises the upper half of the counter that translated code
 * counts down; the lower half is what is left of a vCPU's budget. */
static bool find_counter(uint8_t *cpu)
{
    unsigned counters = 0, requests = 0;

    memset(cpu, 0, CPU_BYTES);
    cpu_exit(cpu);
    for (size_t i = 0; i < CPU_BYTES; i += sizeof(uint16_t)) {
        uint16_t half;

        memcpy(&half, cpu + i, sizeof(half));
        if (half == UINT16_MAX) {
            at.low = i ^ sizeof(half);
            counters++;
        } else if (half) {
            at.request = cpu[i] ? i : i + 1;
            requests++;
        }
    }
    return counters == 1 && requests == 1 && cpu[at.request] == 1;
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
            timers_state[i] = before[i];
        }
    }
    return change;
}

/* Executed is the budget without what is left of it: each of the three fields shows in what
 * the count makes of it. */
static bool find_budget(uint8_t *cpu)
{
    unsigned budgets = 0, extras = 0;

    for (size_t i = 0; i + sizeof(int64_t) <= CPU_BYTES; i += sizeof(int64_t)) {
        int64_t change = update_with(cpu, i, AMOUNT, sizeof(int64_t));

        if (change == AMOUNT) {
            at.budget = i;
            budgets++;
        } else if (change == -AMOUNT) {
            at.extra = i;
            extras++;
        }
    }
    return budgets == 1 && extras == 1 && update_with(cpu, at.low, 4711, 2) == -4711;
}

/* To be called before the machine is made, while nobody else looks at the count. */
bool find_layout(void)
{
    uint8_t *cpu = malloc(CPU_BYTES);
    bool found;

    if (!vmstate_cpu_common || !timers_state || !icount_update || !cpu_exit ||
        !x86_cpu_exec_halt || !x86_cpu_exec_interrupt || !x86_cpu_do_interrupt) {
        refuse("this QEMU does not export what it needs");
        free(cpu);
        return false;
    }
    dl_iterate_phdr(keep_parts, NULL);
    found = cpu && find_described() && find_counter(cpu) && find_budget(cpu);
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
 * Between `restore_state_to_opc` and `debug_excp_handler` it has the two that are called
 * when a vCPU begins and ends a slice; they come before `do_interrupt`.
 */
static void **find_table(void *const *class, size_t words, size_t *place)
{
    for (size_t i = 0; i < words; i++) {
        void **table = class[i];
        size_t deliver, interrupt, halt;

        if (!is_qemus(table, TABLE_WORDS * sizeof(*table))) {
            continue;
        }
        deliver = place_of(table, TABLE_WORDS, (void *)x86_cpu_do_interrupt);
        interrupt = place_of(table, TABLE_WORDS, (void *)x86_cpu_exec_interrupt);
        halt = place_of(table, TABLE_WORDS, (void *)x86_cpu_exec_halt);
        if (deliver >= 3 && interrupt == deliver + 1 && halt == deliver + 2 &&
            halt < TABLE_WORDS && is_qemus(table[deliver - 3], 1) &&
            is_qemus(table[deliver - 2], 1) && is_qemus(table[deliver - 1], 1)) {
            *place = i;
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
    size_t place, deliver;

    table = find_table(class, malloc_usable_size(class) / sizeof(*class), &place);
    copy = table ? malloc(TABLE_WORDS * sizeof(*copy)) : NULL;
    if (!copy) {
        return false;
    }
    memcpy(copy, table, TABLE_WORDS * sizeof(*copy));
    deliver = place_of(table, TABLE_WORDS, (void *)x86_cpu_do_interrupt);
    theirs->enter = (void (*)(cpu_state *))table[deliver - 3];
    theirs->leave = (void (*)(cpu_state *))table[deliver - 2];
    theirs->halt = x86_cpu_exec_halt;
    copy[deliver - 3] = (void *)ours->enter;
    copy[deliver - 2] = (void *)ours->leave;
    copy[deliver + 2] = (void *)ours->halt;
    class[place] = copy;
    return true;
}
