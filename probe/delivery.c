/*
 * The frames that interrupts and exceptions push: QEMU writes them outside translated
 * code, where no callback sees it. The log tells at which positions; the handler's first
 * block finds them on its stack. Known for x86_64 in long mode (Intel SDM vol. 3, 6.14.2:
 * SS, RSP, RFLAGS, CS, RIP on a 16-byte boundary, below them an error code or nothing)
 * and in real mode (20.1.4: FLAGS, CS and IP of 2 bytes each). Elsewhere how much was pushed
 * depends on the vector, which nobody tells: where memory alone is asked for (FEATURE_MEMORY),
 * all that a frame can reach is logged as it is then, changed or not.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "probe.h"

static uint64_t next; /* index of the first delivery not seen yet */
uint64_t next_delivery;
uint64_t interrupted_pc, interrupted_sp;

static void advance_to(uint64_t index)
{
    const uint64_t *sorted = table(&page->deliveries);

    next = index;
    next_delivery = index < page->deliveries.total ? sorted[index] : ~UINT64_C(0);
}

/* Record a frame of `words` words with its lowest at `top`. */
static void record_frame(uint64_t position, uint64_t pc, uint64_t top, uint64_t words,
                         unsigned size)
{
    for (uint64_t word = 0; word < words; word++) {
        record_delivered(position, pc, top + size * word, size);
    }
}

/* Log all that the one frame pushed at `position` can reach, or count it as missed. */
static void log_reach(uint64_t position, uint64_t pc, unsigned frames)
{
    uint64_t top;

    if (page->features & FEATURE_MEMORY && frames == 1 && can_place() && find_frame(&top)) {
        record_present(position, pc, top, isa->frame);
    } else {
        page->deliveries_missed += frames;
    }
}

/* Record the newest `frames` frames; in long mode each holds the stack pointer of the one
 * before, in real mode that one lies right above. */
static void record_frames(uint64_t position, uint64_t pc, unsigned frames)
{
    uint64_t top;
    bool readable = true;

    if (isa->opcodes) {
        find_interrupted(pc, frames, &interrupted_pc, &interrupted_sp);
        page->deliveries_missed += recording_at(position) ? frames : 0;
        return;
    }
    top = stack_top();
    interrupted_pc = pc; /* until known better */
    interrupted_sp = top;
    if (!recording_at(position)) {
        return;
    }
    if (in_real_mode()) {
        record_frame(position, pc, top, 3 * frames, 2);
        return;
    }
    if (!in_long_mode()) {
        log_reach(position, pc, frames);
        return;
    }
    for (unsigned frame = 0; frame < frames && readable; frame++) {
        uint64_t words = top & 8 ? 5 : 6; /* the boundary tells whether an error code is there */

        record_frame(position, pc, top, words, 8);
        interrupted_pc = memory_value(top + 8 * (words - 5), 8, &readable);
        top = interrupted_sp = memory_value(top + 8 * (words - 2), 8, &readable);
    }
}

/* Record what was delivered since the last call, and return whether anything was at
 * `position`. `unbegun`: the block's first instruction will fault, and that delivery is to
 * come. */
bool deliver(uint64_t position, uint64_t pc, bool unbegun)
{
    const uint64_t *sorted = table(&page->deliveries);
    uint64_t end = next;
    unsigned frames = 0;

    while (end < page->deliveries.total && sorted[end] <= position) {
        frames += sorted[end] == position;
        end++;
    }
    if (unbegun && frames) {
        frames--;
        end--;
    }
    if (frames) {
        record_frames(position, pc, frames);
        record_trap(position, pc, end - 1);
    }
    advance_to(end);
    return frames;
}

static void block_begins(unsigned vcpu, void *pc)
{
    (void)vcpu;
    if (*count >= next_delivery) {
        deliver(*count, (uintptr_t)pc, false);
    }
}

static void suspect_block_begins(unsigned vcpu, void *pc)
{
    (void)vcpu;
    if (*count + attempt >= next_delivery) {
        deliver(*count + attempt, (uintptr_t)pc, attempt);
    }
}

void take_over_deliveries(void)
{
    const uint64_t *sorted = table(&page->deliveries);
    uint64_t low = 0, high = page->deliveries.total;

    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (sorted[middle] < *count) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    advance_to(low);
}

void log_deliveries(struct qemu_plugin_tb *tb, uint64_t pc, bool suspect)
{
    if (page->deliveries.total) {
        qemu_plugin_register_vcpu_tb_exec_cb(tb, suspect ? suspect_block_begins : block_begins,
                                             CALLBACK_READS_REGS, (void *)(uintptr_t)pc);
    }
}
