/*
 * What the machine is like where breakpoints are hit: registers, and the pages of memory they
 * point to. Who stops at many hits then needs no machine at each.
 *
 * In the middle of a block some registers are stale; which are kept is for Python to choose.
 * The pc is put together from where the block began, which is known there.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stddef.h>
#include <string.h>

#include "probe.h"

#define RECENT 1024

static struct {
    uint64_t paddr, number;
} recent[RECENT]; /* where pages of physical memory were kept last */

static struct qemu_plugin_scoreboard *counters;
static struct counters *now;
static uint64_t block_vaddr, block_pc; /* where the block was translated, and where it runs */
static uint64_t next_chosen;
static bool follows_hit; /* whether an instruction before, in the block being translated, may be a hit */

static plugin_u64 counter(size_t offset)
{
    return (plugin_u64){counters, offset};
}

static bool is_chosen(uint64_t position)
{
    const uint64_t *chosen = table(&page->chosen);

    while (next_chosen < page->chosen.total && chosen[next_chosen] < position) {
        next_chosen++;
    }
    return !page->chosen.total ||
           (next_chosen < page->chosen.total && chosen[next_chosen] == position);
}

/* Whether the page at `paddr` is RAM, as far as Python says. */
bool is_ram(uint64_t paddr)
{
    const struct range *ram = table(&page->ram);

    for (uint64_t i = 0; i < page->ram.total; i++) {
        if (paddr >= ram[i].first && paddr + PAGE_BYTES - 1 <= ram[i].last) {
            return true;
        }
    }
    return false;
}

/* Keep a page as it is now, once where it has not changed; only RAM, because a device may
 * take notice of being looked at. */
static void keep_page(struct moment *moment, uint64_t vaddr)
{
    char(*pages)[PAGE_BYTES] = table(&page->moment_pages);
    uint64_t paddr, number, at;

    vaddr &= -(uint64_t)PAGE_BYTES;
    for (uint64_t i = 0; i < moment->pages; i++) {
        if (moment->page[i].vaddr == vaddr) {
            return;
        }
    }
    paddr = physical_address(vaddr);
    if (moment->pages == MOMENT_PAGES || paddr == NOWHERE || !is_ram(paddr) ||
        !qemu_plugin_read_memory_vaddr(vaddr, buffer, PAGE_BYTES)) {
        return;
    }
    at = paddr / PAGE_BYTES % RECENT;
    number = recent[at].number;
    if (recent[at].paddr != paddr || memcmp(pages[number], buffer->data, PAGE_BYTES)) {
        if (page->moment_pages.total == page->moment_pages.capacity) {
            return;
        }
        number = page->moment_pages.total++;
        memcpy(pages[number], buffer->data, PAGE_BYTES);
        recent[at].paddr = paddr;
        recent[at].number = number;
    }
    moment->page[moment->pages].vaddr = vaddr;
    moment->page[moment->pages++].number = number;
}

static void keep_pages(struct moment *moment, const uint8_t *registers, const uint8_t *sizes)
{
    bool big_endian = is_big_endian();
    const uint64_t *seen = table(&page->seen);

    keep_page(moment, moment->pc);
    for (uint64_t i = 0; i < page->seen.total; i++) {
        keep_page(moment, seen[i]);
    }
    for (uint64_t i = 0; i < page->pointers; registers += sizes[i++]) {
        keep_page(moment, number_at(registers, sizes[i], big_endian));
    }
}

/* Where an instruction of the running block is, translated at `vaddr`; gdb's view. */
static uint64_t pc_of(uint64_t vaddr)
{
    uint64_t value = block_pc + (vaddr - block_vaddr);

    return isa->word == 4 ? (uint32_t)value : value;
}

void keep_moment(uint64_t position, uint64_t vaddr)
{
    struct moment *moment = (struct moment *)table(&page->moments) + page->moments.total;
    uint8_t sizes[MAX_REGISTERS], *registers;
    uint64_t bytes = 0;

    now->pending = 0;
    if (page->moments.total == page->moments.capacity || !is_chosen(position)) {
        return;
    }
    registers = (uint8_t *)table(&page->moment_registers) + page->moments.total * page->kept_bytes;
    for (uint64_t i = 0; i < page->kept_registers; i++) {
        unsigned size = copy_register(i, registers + bytes, page->kept_bytes - bytes);

        if (!size) {
            return;
        }
        sizes[i] = size;
        bytes += size;
    }
    if (bytes != page->kept_bytes) {
        return;
    }
    moment->position = position;
    moment->pc = pc_of(vaddr);
    moment->before = now->last;
    moment->after = NOWHERE;
    moment->pages = 0;
    keep_pages(moment, registers, sizes);
    page->moments.total++;
    now->pending = 1;
}

/* An instruction begins that was translated at `vaddr`, behind a hit. Where that is not gdb's
 * pc a segment has a base, the page is mapped twice, or gdb's pc is that of another mode. */
static void note_after(uint64_t vaddr)
{
    struct moment *moment = (struct moment *)table(&page->moments) + page->moments.total - 1;
    uint64_t pc = pc_of(vaddr);

    if (!now->pending || *count != moment->position + 1) {
        now->pending &= *count == moment->position;
        return;
    }
    if (attempt) {
        return; /* it faults: the handler comes after */
    }
    now->pending = 0;
    moment->after = pc == vaddr ? pc : NOWHERE;
    if (page->chosen.total && pc == vaddr) {
        keep_moment(*count, vaddr);
    }
}

static void block_begins(unsigned vcpu, void *vaddr)
{
    (void)vcpu;
    block_vaddr = (uintptr_t)vaddr;
    block_pc = viewed_pc();
}

static void block_follows(unsigned vcpu, void *vaddr)
{
    block_begins(vcpu, vaddr);
    note_after(block_vaddr);
}

static void instruction_follows(unsigned vcpu, void *vaddr)
{
    (void)vcpu;
    note_after((uintptr_t)vaddr);
}

void take_over_moments(struct qemu_plugin_scoreboard *board)
{
    counters = board;
    now = qemu_plugin_scoreboard_find(board, 0);
    now->pending = now->last = 0;
    next_chosen = 0;
    memset(recent, 0xff, sizeof(recent));
}

/* Before its instructions are instrumented. */
void follow_block(struct qemu_plugin_tb *tb, bool may_hit)
{
    void *vaddr = (void *)(uintptr_t)qemu_plugin_insn_vaddr(qemu_plugin_tb_get_insn(tb, 0));

    follows_hit = false;
    if (may_hit) {
        qemu_plugin_register_vcpu_tb_exec_cb(tb, block_begins, CALLBACK_READS_REGS, vaddr);
    }
    qemu_plugin_register_vcpu_tb_exec_cond_cb(tb, block_follows, CALLBACK_READS_REGS,
                                              CONDITION_NE,
                                              counter(offsetof(struct counters, pending)), 0,
                                              vaddr);
}

/* Before its breakpoint is looked for, so that a hit sees what ran before it. */
void follow_instruction(struct qemu_plugin_insn *insn)
{
    void *vaddr = (void *)(uintptr_t)qemu_plugin_insn_vaddr(insn);

    if (follows_hit) {
        qemu_plugin_register_vcpu_insn_exec_cb(insn, instruction_follows, CALLBACK_READS_REGS,
                                               vaddr);
    }
    follows_hit = may_break((uintptr_t)vaddr);
}

/* Behind it. */
void remember_instruction(struct qemu_plugin_insn *insn)
{
    qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(
        insn, INLINE_STORE_U64, counter(offsetof(struct counters, last)),
        qemu_plugin_insn_vaddr(insn));
}
