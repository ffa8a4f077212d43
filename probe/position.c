/*
 * Exact positions: instructions begun, with those that begin twice taken back
 * (docs/probe.md explains all cases).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "probe.h"

uint64_t *count;
uint64_t attempt;

static bool based;

static bool exception_at(uint64_t position)
{
    const uint64_t *sorted = table(&page->exceptions);
    size_t low = 0, high = page->exceptions.total;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (sorted[middle] < position) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < page->exceptions.total && sorted[low] == position;
}

/*
 * A block of one instruction, first seen where the log has an exception. QEMU's replay
 * runs a faulting instruction as a block of its own that does not count (cpu-exec.c:
 * cpu_handle_exception), so the clock did not move for this block; for any other it is
 * one ahead already.
 */
static void suspect_begins(unsigned vcpu, void *unused)
{
    (void)vcpu, (void)unused;
    attempt = (uint64_t)icount_get_raw() == *count;
    *count -= attempt;
    page->faults += attempt;
}

/* A block QEMU runs only to repeat an instruction it abandoned, uncounted: a store into
 * the very block it was in. Its first attempt has been counted here. */
static void rerun_begins(unsigned vcpu, void *instructions)
{
    (void)vcpu;
    *count = (uint64_t)icount_get_raw() - (uintptr_t)instructions;
    page->reruns++;
}

static void audit_block(unsigned vcpu, void *instructions)
{
    uint64_t begins = (uint64_t)icount_get_raw() - (uintptr_t)instructions;

    (void)vcpu;
    page->audited++;
    if (begins != *count && page->audit_errors++ == 0) {
        page->audit_position = begins;
    }
}

/* Find where we are, at the translation of a block about to run, and how to count it. */
enum rerun locate(size_t instructions)
{
    uint64_t now = (uint64_t)icount_get_raw();
    uint64_t drift = *count - now;

    if (!based) {
        *count = now;
        based = true;
    } else if (drift == instructions) {
        /* Abandoned and about to be repeated. After device access in mid-block the
         * repetition runs uninstrumented (cpu_io_recompile), so its callback is dropped
         * and the count is right as it is. */
        return RERUN_CERTAIN;
    } else if (drift != 0) {
        page->surprises++;
        page->surprise_position = now;
        page->surprise_drift = drift;
        *count = now;
    }
    return instructions == 1 && exception_at(*count) ? RERUN_SUSPECT : RERUN_NONE;
}

/* After this the next block translated says where we are. */
void forget_position(void)
{
    based = false;
}

/* Instrument a block so that `count` stays right. To be called before anything else is
 * registered for it: callbacks run in that order. */
void watch_position(struct qemu_plugin_tb *tb, size_t instructions, enum rerun rerun)
{
    plugin_exec_callback callback = rerun == RERUN_SUSPECT ? suspect_begins
                                    : rerun == RERUN_CERTAIN ? rerun_begins
                                    : page->features & FEATURE_AUDIT ? audit_block : NULL;

    if (callback) {
        qemu_plugin_register_vcpu_tb_exec_cb(tb, callback, CALLBACK_NO_REGS,
                                             (void *)instructions);
    }
}
