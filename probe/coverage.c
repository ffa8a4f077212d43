/*
 * What ran: every block with how often, first and last; and where one block ends and the
 * next begins, what that means for calls and context.
 *
 * QEMU may abandon a block and go on with another in its middle, and each position must be
 * in exactly one block: where the next block begins tells how far the one before came.
 *
 * QEMU runs a translation wherever its page is mapped (CF_PCREL, on x86 and Arm), also at
 * another address than that it was made for: so where a block begins is read, not known.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "probe.h"

/* A block as QEMU translated it. */
struct piece {
    struct piece *older; /* all are freed when the translations are gone */
    struct piece *alias; /* the same code at another address */
    struct block *block;
    uint64_t pc;
    struct control control;
    uint32_t instructions;
    uint16_t ends[]; /* bytes from pc to the end of each instruction */
};

#define BLOCKS_HASHED (1u << 18)
static uint32_t chains[BLOCKS_HASHED]; /* 1 + index of a block, or 0 */
static uint32_t *next_in_chain;
static struct block nowhere; /* counted here when the table is full */

static struct piece *pieces;
static const struct piece *running; /* the block that began last, or NULL */
static uint64_t last_before;        /* what its entry's `last` was then */
static uint64_t began, expected;    /* where, and where the next should */
static uint64_t generation, epoch;

static struct block *block_of(uint64_t pc, uint32_t size, uint32_t instructions)
{
    struct block *blocks = table(&page->blocks);
    uint64_t mixed = (pc ^ (uint64_t)instructions << 48) * UINT64_C(0x9e3779b97f4a7c15);
    uint32_t *chain = &chains[mixed >> 46];
    uint32_t index;

    for (index = *chain; index; index = next_in_chain[index - 1]) {
        struct block *block = &blocks[index - 1];

        if (block->pc == pc && block->size == size && block->instructions == instructions) {
            return block;
        }
    }
    if (page->blocks.total == page->blocks.capacity) {
        page->overflows++;
        return &nowhere;
    }
    index = page->blocks.total++;
    next_in_chain[index] = *chain;
    *chain = index + 1;
    blocks[index] = (struct block){.pc = pc, .size = size, .instructions = instructions};
    return &blocks[index];
}

static void ran(struct block *block, uint64_t position)
{
    if (block->count++ == 0) {
        block->first = position;
    }
    block->last = position;
}

/* The block before ended early, at `position`: count what did run. */
static void cut_short(uint64_t position)
{
    uint64_t instructions = position - began;

    running->block->count--;
    running->block->last = last_before;
    if (instructions && instructions < running->instructions) {
        ran(block_of(running->pc, running->ends[instructions - 1], instructions), began);
    }
}

/* All that is rare, between one block and the next. */
static void between(const struct piece *now, uint64_t position, uint64_t upcoming, bool attempted)
{
    const struct piece *last = running;
    bool delivered, is_new;
    int kind;

    if (last && position != expected) {
        cut_short(position);
        last = NULL;
    }
    running = NULL;
    kind = last ? last->control.kind : CONTROL_NONE;
    delivered = position >= next_delivery && deliver(position, upcoming, attempted);
    if (kind == CONTROL_CALL || kind == CONTROL_RETURN) {
        transferred(last->control, position, last->pc + last->ends[last->instructions - 1],
                    last->instructions > 1 ? last->pc + last->ends[last->instructions - 2]
                                           : last->pc,
                    now->pc, delivered);
    }
    is_new = page->epoch != epoch;
    if (is_new) {
        epoch = page->epoch;
        forget_calls();
    }
    if (is_new || delivered || kind == CONTROL_SYSTEM) {
        look_at_context(position);
    }
    if (is_new || delivered || !last || kind == CONTROL_SYSTEM || kind == CONTROL_MAPPING) {
        forget_lines();
    }
}

static inline bool is_eventful(uint64_t position)
{
    return position != expected || position >= next_delivery || page->epoch != epoch ||
           !running || running->control.kind != CONTROL_NONE;
}

static inline void begin(const struct piece *now, uint64_t position)
{
    running = now;
    began = position;
    expected = position + now->instructions;
    last_before = now->block->last;
    ran(now->block, position);
}

static const struct piece *alias_of(struct piece *known, uint64_t pc)
{
    size_t bytes = sizeof(*known) + known->instructions * sizeof(known->ends[0]);
    struct piece *piece;

    for (piece = known->alias; piece; piece = piece->alias) {
        if (piece->pc == pc) {
            return piece;
        }
    }
    piece = memcpy(malloc(bytes), known, bytes);
    piece->older = pieces;
    pieces = piece;
    piece->pc = pc;
    piece->block = block_of(pc, piece->ends[piece->instructions - 1], piece->instructions);
    known->alias = piece;
    return piece;
}

/* The block that begins, at the address it runs at. */
static inline const struct piece *at_its_place(struct piece *known)
{
    uint64_t pc;

    if (!asks_pc) {
        return known;
    }
    pc = current_pc();
    return pc == known->pc ? known : alias_of(known, pc);
}

static void block_begins(unsigned vcpu, void *data)
{
    const struct piece *now = at_its_place(data);
    uint64_t position = *count;

    (void)vcpu;
    if (is_eventful(position)) {
        between(now, position, now->pc, false);
    }
    begin(now, position);
}

/* Nothing of a block runs whose only instruction faults. */
static void suspect_block_begins(unsigned vcpu, void *data)
{
    const struct piece *now = at_its_place(data);
    uint64_t position = *count + attempt;

    (void)vcpu;
    between(now, position, now->pc, attempt);
    if (attempt) {
        expected = position;
    } else {
        begin(now, position);
    }
}

/* The translations are gone, and all that points to them; but the last block to run may
 * still have to be told what came of it. */
void forget_blocks(void)
{
    struct piece *kept = NULL;

    while (pieces) {
        struct piece *piece = pieces;

        pieces = piece->older;
        if (piece == running) {
            kept = piece;
            kept->older = kept->alias = NULL;
        } else {
            free(piece);
        }
    }
    pieces = kept;
}

/* Start anew where Python armed anew. */
void take_over_coverage(void)
{
    if (generation != page->generation) {
        generation = page->generation;
        epoch = page->epoch - 1;
        running = NULL;
        memset(chains, 0, sizeof(chains));
        free(next_in_chain);
        next_in_chain = calloc(page->blocks.capacity, sizeof(*next_in_chain));
        expected = *count;
    }
}

static void after_system(unsigned vcpu, void *unused)
{
    (void)vcpu, (void)unused;
    look_at_context(*count);
}

void log_block(struct qemu_plugin_tb *tb, size_t instructions, bool suspect)
{
    struct piece *piece = malloc(sizeof(*piece) + instructions * sizeof(piece->ends[0]));
    bool big_endian = is_big_endian();
    struct control control = {CONTROL_NONE, 0};
    uint16_t end = 0;

    for (size_t i = 0; i < instructions; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);

        if (control.kind == CONTROL_SYSTEM) { /* Power goes on in the block after mtspr */
            qemu_plugin_register_vcpu_insn_exec_cb(insn, after_system, CALLBACK_READS_REGS, NULL);
        }
        if (isa->opcodes || i == instructions - 1) { /* x86 ends blocks with all of these */
            control = control_of(insn, big_endian);
        }
        piece->ends[i] = end += qemu_plugin_insn_size(insn);
    }
    piece->older = pieces;
    piece->alias = NULL;
    pieces = piece;
    piece->pc = qemu_plugin_insn_vaddr(qemu_plugin_tb_get_insn(tb, 0));
    piece->instructions = instructions;
    piece->control = control;
    piece->block = block_of(piece->pc, end, instructions);
    qemu_plugin_register_vcpu_tb_exec_cb(tb, suspect ? suspect_block_begins : block_begins,
                                         CALLBACK_READS_REGS, piece);
}
