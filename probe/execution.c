/*
 * Which instructions run: breakpoints with conditions, and the log of all steps.
 *
 * QEMU runs a translation wherever its page is mapped (CF_PCREL, on x86, Arm and RISC-V). So an
 * instruction may be at any breakpoint that is as far into its page as itself.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "probe.h"

static uint64_t places[PAGE_BYTES / 64]; /* a bit for each place in a page where a breakpoint is */

static uint64_t operand(const struct condition *condition, bool *readable)
{
    return condition->in_memory ? memory_value(condition->address, condition->size, readable)
                                : register_value(condition->reg, readable);
}

static bool holds(const struct condition *condition)
{
    bool readable;
    uint64_t value = operand(condition, &readable) & condition->mask;

    if (!readable) {
        return false;
    }
    switch ((enum comparison)condition->comparison) {
    case EQUAL:
        return value == condition->value;
    case NOT_EQUAL:
        return value != condition->value;
    case BELOW:
        return value < condition->value;
    case BELOW_OR_EQUAL:
        return value <= condition->value;
    case ABOVE:
        return value > condition->value;
    case ABOVE_OR_EQUAL:
        return value >= condition->value;
    }
    return false;
}

static bool counts(const struct breakpoint *hit)
{
    const struct condition *conditions = table(&page->conditions);
    const struct expression *expressions = table(&page->expressions);

    for (uint32_t i = 0; i < hit->conditions; i++) {
        if (!holds(&conditions[hit->first_condition + i])) {
            return false;
        }
    }
    for (uint32_t i = 0; i < hit->expressions; i++) {
        if (expression_holds(&expressions[hit->first_expression + i])) {
            return true;
        }
    }
    return !hit->expressions;
}

static void breakpoint_reached(uint64_t which, uint64_t vaddr, bool faulting)
{
    const struct breakpoint *hit = (struct breakpoint *)table(&page->breakpoints) + which;
    uint64_t position = *count + faulting;
    struct record *record;

    if (!recording_at(position) || !counts(hit)) {
        return;
    }
    record = ring_slot(&page->hits, sizeof(*record));
    *record = (struct record){.position = position, .pc = hit->pc, .which = which,
                              .flags = faulting ? RECORD_ATTEMPT : 0};
    if (page->features & FEATURE_MOMENTS && !faulting) {
        keep_moment(position, vaddr);
    }
}

/* A breakpoint where the code that has it was translated. */
static void fixed_reached(uint64_t which, bool faulting)
{
    breakpoint_reached(which, ((struct breakpoint *)table(&page->breakpoints))[which].pc, faulting);
}

static void at_breakpoint(unsigned vcpu, void *which)
{
    (void)vcpu;
    fixed_reached((uintptr_t)which, false);
}

static void at_suspect_breakpoint(unsigned vcpu, void *which)
{
    (void)vcpu;
    fixed_reached((uintptr_t)which, attempt);
}

static int breakpoint_index(uint64_t pc)
{
    const struct breakpoint *sorted = table(&page->breakpoints);
    size_t low = 0, high = page->breakpoints.total;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (sorted[middle].pc < pc) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < page->breakpoints.total && sorted[low].pc == pc ? (int)low : -1;
}

/* Where the instruction that was translated at `pc` runs now. In a block the pc lags behind,
 * but not further than its beginning, in the same page. */
static uint64_t place_of(uint64_t pc)
{
    uint64_t lagging = current_pc();

    return lagging + (pc - lagging) % PAGE_BYTES;
}

static void reached_anywhere(uint64_t pc, bool faulting)
{
    int which = breakpoint_index(place_of(pc));

    if (which >= 0) {
        breakpoint_reached(which, pc, faulting);
    }
}

static void at_place(unsigned vcpu, void *pc)
{
    (void)vcpu;
    reached_anywhere((uintptr_t)pc, false);
}

static void at_suspect_place(unsigned vcpu, void *pc)
{
    (void)vcpu;
    reached_anywhere((uintptr_t)pc, attempt);
}

static void put_step(uint64_t position, uint64_t pc)
{
    if (recording_at(position)) {
        *(struct step *)ring_slot(&page->steps, sizeof(struct step)) =
            (struct step){.position = position, .pc = pc};
    }
}

static void on_step(unsigned vcpu, void *pc)
{
    (void)vcpu;
    put_step(*count, (uintptr_t)pc);
}

static void on_suspect_step(unsigned vcpu, void *pc)
{
    (void)vcpu;
    put_step(*count + attempt, (uintptr_t)pc);
}

static void on_step_anywhere(unsigned vcpu, void *pc)
{
    (void)vcpu;
    put_step(*count, place_of((uintptr_t)pc));
}

static void on_suspect_step_anywhere(unsigned vcpu, void *pc)
{
    (void)vcpu;
    put_step(*count + attempt, place_of((uintptr_t)pc));
}

static void log_step(struct qemu_plugin_insn *insn, uint64_t pc, bool suspect)
{
    bool anywhere = runs_anywhere(pc);
    plugin_exec_callback fixed = suspect ? on_suspect_step : on_step;
    plugin_exec_callback asking = suspect ? on_suspect_step_anywhere : on_step_anywhere;

    qemu_plugin_register_vcpu_insn_exec_cb(insn, anywhere ? asking : fixed,
                                           anywhere ? CALLBACK_READS_REGS : CALLBACK_NO_REGS,
                                           (void *)(uintptr_t)pc);
}

void take_over_breakpoints(void)
{
    const struct breakpoint *all = table(&page->breakpoints);

    memset(places, 0, sizeof(places));
    for (size_t i = 0; i < page->breakpoints.total; i++) {
        places[all[i].pc % PAGE_BYTES / 64] |= UINT64_C(1) << all[i].pc % 64;
    }
}

/* Whether an instruction translated at `pc` may be at a breakpoint when it runs. */
bool may_break(uint64_t pc)
{
    return places[pc % PAGE_BYTES / 64] >> pc % 64 & 1;
}

static void log_breakpoint(struct qemu_plugin_insn *insn, uint64_t pc, bool suspect)
{
    int which;

    if (!may_break(pc)) {
        return;
    }
    if (runs_anywhere(pc)) {
        qemu_plugin_register_vcpu_insn_exec_cb(insn, suspect ? at_suspect_place : at_place,
                                               CALLBACK_READS_REGS, (void *)(uintptr_t)pc);
    } else if ((which = breakpoint_index(pc)) >= 0) {
        qemu_plugin_register_vcpu_insn_exec_cb(insn,
                                               suspect ? at_suspect_breakpoint : at_breakpoint,
                                               CALLBACK_READS_REGS, (void *)(uintptr_t)which);
    }
}

void log_execution(struct qemu_plugin_insn *insn, bool suspect)
{
    uint64_t pc = qemu_plugin_insn_vaddr(insn);

    if (page->features & FEATURE_STEPS) {
        log_step(insn, pc, suspect);
    }
    if (page->features & FEATURE_BREAK) {
        look_for_flags(insn);
        log_breakpoint(insn, pc, suspect);
    }
}
