/*
 * Which lines of physical memory were stored to.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "probe.h"

#define LINES_OF_PAGE (PAGE_BYTES / LINE_BYTES)

/* Where virtual memory lies now. The first is of the API since version 5, the second, of
 * pages and ~0 where there is none, of no API (QEMU's include/hw/core/cpu.h) and gone in 11.1. */
extern bool qemu_plugin_translate_vaddr(uint64_t vaddr, uint64_t *paddr) __attribute__((weak));
extern uint64_t cpu_get_phys_page_debug(void *vcpu, uint64_t address) __attribute__((weak));

static uint64_t *lines, *touched;

/* Lines of virtual memory known to be marked: 1 + their numbers. Valid as long as nothing
 * can have changed the mapping (forget_lines). */
#define RECENT 1024
static uint64_t recent[RECENT];
static bool knows_mapping; /* which instructions can change it (control.c) */

/* Mark the bytes from `first` to `last`, which are in one page. */
static inline void mark(uint64_t first, uint64_t last)
{
    uint64_t number = first / PAGE_BYTES, marks;

    if (number >= page->written.capacity) {
        page->unplaced++;
        return;
    }
    marks = UINT64_C(1) << first / LINE_BYTES % LINES_OF_PAGE |
            UINT64_C(1) << last / LINE_BYTES % LINES_OF_PAGE;
    if (!lines[number]) {
        touched[page->touched.total++] = number;
    }
    lines[number] |= marks;
}

static void mark_at(plugin_mem_info info, uint64_t vaddr, unsigned size)
{
    struct qemu_plugin_hwaddr *place = qemu_plugin_get_hwaddr(info, vaddr);

    if (!place) {
        page->unplaced++;
    } else if (!qemu_plugin_hwaddr_is_io(place)) {
        uint64_t first = qemu_plugin_hwaddr_phys_addr(place);

        mark(first, first + size - 1);
    }
}

static void stored_anew(plugin_mem_info info, uint64_t vaddr)
{
    unsigned size = 1 << qemu_plugin_mem_size_shift(info);
    unsigned here = PAGE_BYTES - (vaddr & (PAGE_BYTES - 1));

    if (vaddr % LINE_BYTES + size <= LINE_BYTES) {
        recent[vaddr / LINE_BYTES % RECENT] = vaddr / LINE_BYTES + 1;
    }
    if (size > here) {
        mark_at(info, vaddr + here, size - here);
        size = here;
    }
    mark_at(info, vaddr, size);
}

static void stored_anywhere(unsigned vcpu, plugin_mem_info info, uint64_t vaddr, void *unused)
{
    (void)vcpu, (void)unused;
    stored_anew(info, vaddr);
}

static void stored(unsigned vcpu, plugin_mem_info info, uint64_t vaddr, void *unused)
{
    (void)vcpu, (void)unused;
    if (recent[vaddr / LINE_BYTES % RECENT] != vaddr / LINE_BYTES + 1 ||
        (vaddr % LINE_BYTES > LINE_BYTES - 16 &&
         vaddr % LINE_BYTES + (1 << qemu_plugin_mem_size_shift(info)) > LINE_BYTES)) {
        stored_anew(info, vaddr);
    }
}

void forget_lines(void)
{
    memset(recent, 0, sizeof(recent));
}

/* Return the physical address of `vaddr`, ~0 where there is none. */
uint64_t physical_address(uint64_t vaddr)
{
    uint64_t paddr = ~UINT64_C(0), offset = vaddr & (PAGE_BYTES - 1);

    if (qemu_plugin_translate_vaddr) {
        return qemu_plugin_translate_vaddr(vaddr, &paddr) ? paddr : ~UINT64_C(0);
    }
    if (cpu_get_phys_page_debug && this_vcpu()) {
        paddr = cpu_get_phys_page_debug(this_vcpu(), vaddr - offset);
    }
    return paddr == ~UINT64_C(0) ? paddr : (paddr & -(uint64_t)PAGE_BYTES) | offset;
}

/* Whether `physical_address` tells anything, in this QEMU. */
bool can_place(void)
{
    return qemu_plugin_translate_vaddr || (cpu_get_phys_page_debug && this_vcpu());
}

/* A word an interrupt or exception pushed; it does not cross a line. */
void mark_delivered(uint64_t vaddr, unsigned size)
{
    uint64_t paddr = physical_address(vaddr);

    if (paddr == ~UINT64_C(0)) {
        page->unplaced++;
        return;
    }
    mark(paddr, paddr + size - 1);
}

void take_over_written(bool x86_64)
{
    knows_mapping = x86_64;
    lines = table(&page->written);
    touched = table(&page->touched);
}

void log_written(struct qemu_plugin_insn *insn)
{
    qemu_plugin_register_vcpu_mem_cb(insn, knows_mapping ? stored : stored_anywhere,
                                     CALLBACK_NO_REGS, ACCESS_WRITE, NULL);
}
