/*
 * Calls, the returns from them, and the context they are made in.
 *
 * A call is live until a return takes the stack pointer back to where it was before the
 * call; with a link register, where functions may leave the stack alone, that return must
 * also lead behind the call. No stacks are told apart: stack pointers are, and in user mode
 * address spaces. So a call is matched with its return however often the system switches
 * in between.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "probe.h"

static struct live {
    uint64_t key;
    uint64_t return_pc;
    uint64_t call; /* 1 + its number in page->calls, or 0 */
    uint32_t depth;
} *lives; /* a hash table with open addresses */
static uint64_t slots, used;
static uint32_t depth;
static uint64_t space;
static unsigned level;
static bool is_known, counts_calls;

static uint64_t slot_of(uint64_t key)
{
    return key * UINT64_C(0x9e3779b97f4a7c15) >> 20 & (slots - 1);
}

static struct live *find(uint64_t key)
{
    uint64_t slot = slot_of(key);

    while (lives[slot].call && lives[slot].key != key) {
        slot = (slot + 1) & (slots - 1);
    }
    return &lives[slot];
}

static void grow(void)
{
    struct live *old = lives;
    uint64_t count_old = slots;

    slots = slots ? 2 * slots : 1 << 12;
    lives = calloc(slots, sizeof(*lives));
    for (uint64_t i = 0; i < count_old; i++) {
        if (old[i].call) {
            *find(old[i].key) = old[i];
        }
    }
    free(old);
}

/* Close the gap, so that nothing behind it is lost. */
static void drop(struct live *gone)
{
    uint64_t gap = gone - lives, slot = gap;

    used--;
    for (;;) {
        lives[gap].call = 0;
        do {
            slot = (slot + 1) & (slots - 1);
            if (!lives[slot].call) {
                return;
            }
        } while (((slot - slot_of(lives[slot].key)) & (slots - 1)) < ((slot - gap) & (slots - 1)));
        lives[gap] = lives[slot];
        gap = slot;
    }
}

static uint64_t key_of(uint64_t sp, uint64_t return_pc)
{
    uint64_t key = level == isa->user ? sp ^ space << 16 ^ space >> 48 : sp;

    return isa->pushes ? key : key ^ return_pc * UINT64_C(0xff51afd7ed558ccd);
}

void forget_calls(void)
{
    if (lives) {
        memset(lives, 0, slots * sizeof(*lives));
    }
    used = 0;
    depth = 0;
    is_known = false;
}

static void called(uint64_t position, uint64_t return_pc, uint64_t pc, uint64_t target,
                   uint64_t sp)
{
    struct call *call;
    struct live *live;

    if (page->calls.total == page->calls.capacity) {
        page->overflows++;
        return;
    }
    if (2 * used >= slots) {
        grow();
    }
    call = (struct call *)table(&page->calls) + page->calls.total++;
    *call = (struct call){.position = position, .pc = pc, .target = target, .sp = sp,
                          .space = space, .depth = depth};
    for (unsigned i = 0; i < 6; i++) {
        call->arguments[i] = general_register(isa->arguments[i]);
    }
    live = find(key_of(sp, return_pc));
    used += !live->call;
    *live = (struct live){key_of(sp, return_pc), return_pc, page->calls.total, depth};
    depth++;
}

static void returned(uint64_t position, uint64_t pc, uint64_t sp)
{
    struct live *live = slots ? find(key_of(sp, pc)) : NULL;

    if (!live || !live->call) {
        depth = 0; /* of a call before the epoch, or on a stack not seen yet */
        return;
    }
    depth = live->depth;
    if (live->return_pc == pc) { /* otherwise a jump by means of a return */
        ((struct call *)table(&page->calls))[live->call - 1].returned = position;
    }
    drop(live);
}

/* What the block that ended at `position` ended with was carried out. */
void transferred(struct control control, uint64_t position, uint64_t return_pc, uint64_t pc,
                 uint64_t now_pc, bool delivered)
{
    uint64_t sp = delivered ? interrupted_sp : general_register(isa->sp);

    now_pc = delivered ? interrupted_pc : now_pc;
    if (!counts_calls || !(page->features & FEATURE_CALLS)) {
        return;
    }
    if (!isa->pushes && now_pc == return_pc) {
        return; /* not taken, or a call of what follows: how code learns its own address */
    }
    if (control.kind == CONTROL_CALL) {
        called(position - 1, return_pc, pc, now_pc, sp + isa->pushes);
    } else if (control.kind == CONTROL_RETURN) {
        returned(position, now_pc, sp - control.popped);
    }
}

static void put_context(uint64_t position, enum context_kind kind, uint64_t value)
{
    if (!(page->features & FEATURE_CONTEXT)) {
        return;
    }
    if (page->contexts.total == page->contexts.capacity) {
        page->overflows++;
        return;
    }
    ((struct context *)table(&page->contexts))[page->contexts.total++] = (struct context){
        .position = position, .value = value, .kind = kind, .initial = !is_known};
}

/* Something may have changed the address space or the privilege level. */
void look_at_context(uint64_t position)
{
    uint64_t space_now;
    unsigned level_now;

    if (!isa->space) {
        return;
    }
    space_now = address_space();
    level_now = privilege();
    if (!is_known || space != space_now) {
        space = space_now;
        put_context(position, CONTEXT_SPACE, space);
    }
    if (!is_known || level != level_now) {
        level = level_now;
        put_context(position, CONTEXT_PRIVILEGE, level);
    }
    is_known = true;
    counts_calls = in_wide_code();
    track_pc();
}
