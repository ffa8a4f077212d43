/*
 * Which instructions run: breakpoints with conditions, and the log of all steps.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "probe.h"

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

static void breakpoint_reached(uint64_t which, bool faulting)
{
    const struct breakpoint *hit = (struct breakpoint *)table(&page->breakpoints) + which;
    const struct condition *conditions = table(&page->conditions);
    uint64_t position = *count + faulting;
    struct record *record;

    if (!recording_at(position)) {
        return;
    }
    for (uint32_t i = 0; i < hit->conditions; i++) {
        if (!holds(&conditions[hit->first_condition + i])) {
            return;
        }
    }
    record = ring_slot(&page->hits, sizeof(*record));
    *record = (struct record){.position = position, .pc = hit->pc, .which = which,
                              .flags = faulting ? RECORD_ATTEMPT : 0};
}

static void at_breakpoint(unsigned vcpu, void *which)
{
    (void)vcpu;
    breakpoint_reached((uintptr_t)which, false);
}

static void at_suspect_breakpoint(unsigned vcpu, void *which)
{
    (void)vcpu;
    breakpoint_reached((uintptr_t)which, attempt);
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

void log_execution(struct qemu_plugin_insn *insn, bool suspect)
{
    uint64_t pc = qemu_plugin_insn_vaddr(insn);
    int which;

    if (page->features & FEATURE_STEPS) {
        qemu_plugin_register_vcpu_insn_exec_cb(insn, suspect ? on_suspect_step : on_step,
                                               CALLBACK_NO_REGS, (void *)(uintptr_t)pc);
    }
    if (page->features & FEATURE_BREAK && (which = breakpoint_index(pc)) >= 0) {
        qemu_plugin_register_vcpu_insn_exec_cb(insn,
                                               suspect ? at_suspect_breakpoint : at_breakpoint,
                                               CALLBACK_READS_REGS, (void *)(uintptr_t)which);
    }
}
