/*
 * Dropping the code QEMU translated, for loads that leave it (docs/quirks.md).
 *
 * It is dropped on the vCPU's thread before that runs the guest again: QEMU's function
 * queues work there, and the machine must not be called running yet by a thread that flushes
 * at once (accel/tcg/tb-maint.c).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "probe.h"

/* Part of no plugin API, as icount_get_raw. The first is of QEMU 10.2 and later, the second
 * of earlier ones; runstate.h and cpu.h declare the others. */
extern void queue_tb_flush(void *cpu) __attribute__((weak));
extern void tb_flush(void *cpu) __attribute__((weak));
extern void *qemu_get_cpu(int index) __attribute__((weak));
extern void *qemu_add_vm_change_state_handler(void (*)(void *, bool running, int state),
                                              void *) __attribute__((weak));

static uint64_t dropped; /* for so many loads */

static void state_changes(void *unused, bool running, int state)
{
    (void)unused, (void)state;
    if (running && page->kept_loads != dropped) {
        dropped = page->kept_loads;
        (queue_tb_flush ? queue_tb_flush : tb_flush)(qemu_get_cpu(0));
    }
}

/* Take orders to drop code; returns whether this QEMU lets us. */
bool offer_to_drop_code(void)
{
    if (!(queue_tb_flush || tb_flush) || !qemu_get_cpu || !qemu_add_vm_change_state_handler) {
        return false;
    }
    dropped = page->kept_loads;
    qemu_add_vm_change_state_handler(state_changes, NULL);
    return true;
}
