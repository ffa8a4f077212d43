/*
 * Memory accesses: watched ranges, and the log of all stores.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "probe.h"

static uint64_t watched_pages[1024]; /* a set of hashed page numbers (or lines), one bit each */
static uint64_t watched_low, watched_high;
static bool watching_physical;

/* Records of words that deliveries pushed, whose physical address is awaited. */
#define MAX_PUSHED 64
#define PUSHED_FOR 256 /* instructions */
static struct pushed {
    struct area *ring;
    uint64_t number;
} pushed[MAX_PUSHED];
static unsigned pushed_words;

static bool watched_page(uint64_t number)
{
    uint64_t bit = number * UINT64_C(0x9e3779b97f4a7c15) >> 48;
    return watched_pages[bit >> 6] >> (bit & 63) & 1;
}

/* The physical address, or ~0: QEMU answers from the TLB entry the access just used. */
static uint64_t physical(plugin_mem_info info, uint64_t vaddr, uint16_t *flags)
{
    struct qemu_plugin_hwaddr *answer = qemu_plugin_get_hwaddr(info, vaddr);

    if (!answer) {
        *flags |= RECORD_NO_PADDR;
        return ~UINT64_C(0);
    }
    if (qemu_plugin_hwaddr_is_io(answer)) {
        *flags |= RECORD_IO;
    }
    return qemu_plugin_hwaddr_phys_addr(answer);
}

/* The bytes an access moved, in address order. */
static void access_bytes(plugin_mem_info info, unsigned size, uint8_t bytes[16])
{
    plugin_mem_value value = qemu_plugin_mem_get_value(info);

    for (unsigned i = 0; i < size; i++) {
        unsigned significance = page->big_endian ? size - 1 - i : i;
        uint64_t word = size < 16 ? value.data.u64
                        : significance < 8 ? value.data.u128.low : value.data.u128.high;
        bytes[i] = word >> 8 * (significance & 7);
    }
}

/* Put an access in pieces that fit a record's value and cross no page. */
static void put_access(struct area *ring, uint32_t which, const struct record *access,
                       plugin_mem_info info)
{
    uint8_t bytes[16];
    unsigned size;

    access_bytes(info, access->size, bytes);
    for (unsigned at = 0; at < access->size; at += size) {
        struct record *piece = ring_slot(ring, sizeof(*piece));
        uint64_t to_page_end = PAGE_BYTES - ((access->vaddr + at) & (PAGE_BYTES - 1));

        size = access->size - at < 8 ? access->size - at : 8;
        size = to_page_end < size ? to_page_end : size;
        *piece = *access;
        piece->which = which;
        piece->vaddr += at;
        piece->size = size;
        if (at) {
            piece->paddr = physical(info, piece->vaddr, &piece->flags);
        }
        for (unsigned i = 0; i < size; i++) {
            unsigned shift = page->big_endian ? size - 1 - i : i;
            piece->value |= (uint64_t)bytes[at + i] << 8 * shift;
        }
    }
}

static bool overlaps(const struct watch *watch, uint64_t first, uint64_t size)
{
    return first <= watch->last && first + size - 1 >= watch->first;
}

static void match_watches(const struct record *access, plugin_mem_info info)
{
    const struct watch *watches = table(&page->watches);
    uint32_t kind = access->flags & RECORD_STORE ? ACCESS_WRITE : ACCESS_READ;
    uint64_t in_page = PAGE_BYTES - (access->vaddr & (PAGE_BYTES - 1));
    uint64_t size = access->size, second = 0;
    uint16_t ignored = 0;

    if (watching_physical && size > in_page) { /* the next page is anywhere */
        second = physical(info, access->vaddr + in_page, &ignored);
    }
    for (uint32_t i = 0; i < page->watches.total; i++) {
        const struct watch *watch = &watches[i];
        bool hit;

        if (!(watch->access & kind)) {
            continue;
        }
        if (!watch->physical) {
            hit = overlaps(watch, access->vaddr, size);
        } else if (size <= in_page) {
            hit = overlaps(watch, access->paddr, size);
        } else {
            hit = overlaps(watch, access->paddr, in_page) ||
                  overlaps(watch, second, size - in_page);
        }
        if (hit) {
            put_access(&page->hits, i, access, info);
            return;
        }
    }
}

static void accessed(plugin_mem_info info, uint64_t vaddr, uint64_t pc, uint64_t position,
                     uint16_t flags, bool watched)
{
    struct record access = {.position = position, .pc = pc, .vaddr = vaddr};

    access.flags = flags | RECORD_ACCESS | (qemu_plugin_mem_is_store(info) ? RECORD_STORE : 0);
    access.size = 1 << qemu_plugin_mem_size_shift(info);
    access.paddr = physical(info, vaddr, &access.flags);
    if (watched) {
        match_watches(&access, info);
    }
    if (page->features & FEATURE_WRITES && access.flags & RECORD_STORE) {
        put_access(&page->writes, 0, &access, info);
    }
}

/* Whether the access may concern a watch; the fast way out for almost all of them. */
static bool interesting(uint64_t vaddr)
{
    if (watching_physical) {
        /* Translation keeps the offset in the page; 64-byte lines of it are looked up. */
        return watched_page(vaddr >> 6 & 63) || watched_page((vaddr + 15) >> 6 & 63);
    }
    return vaddr - watched_low <= watched_high - watched_low &&
           (watched_page(vaddr >> 12) || watched_page((vaddr + 15) >> 12));
}

static void await_page(struct area *ring)
{
    if (pushed_words < MAX_PUSHED) {
        pushed[pushed_words++] = (struct pushed){ring, ring->total - 1};
    }
}

/*
 * Record a word that the delivery of an interrupt or exception pushed. Its physical
 * address is not known yet, so a physical watch takes what could be in it, having the
 * same place in its page; Python drops what turns out not to be.
 */
void record_delivered(uint64_t position, uint64_t pc, uint64_t vaddr, unsigned size)
{
    const struct watch *watches = table(&page->watches);
    struct record word = {.position = position, .pc = pc, .vaddr = vaddr,
                          .paddr = ~UINT64_C(0), .size = size,
                          .flags = RECORD_ACCESS | RECORD_STORE | RECORD_NO_PADDR |
                                   RECORD_DELIVERY};
    bool readable;

    if (page->features & FEATURE_WRITTEN) {
        mark_delivered(vaddr, size);
    }
    if (!(page->features & (FEATURE_WATCH | FEATURE_WRITES))) {
        return;
    }
    word.value = memory_value(vaddr, size, &readable);
    if (page->features & FEATURE_WRITES) {
        *(struct record *)ring_slot(&page->writes, sizeof(word)) = word;
        await_page(&page->writes);
    }
    for (uint32_t i = 0; page->features & FEATURE_WATCH && i < page->watches.total; i++) {
        uint64_t first = vaddr;

        if (watches[i].physical) { /* the word of the watched page it would be */
            first = (watches[i].first & -(uint64_t)PAGE_BYTES) | (vaddr & (PAGE_BYTES - 1));
            first += first + size - 1 < watches[i].first ? PAGE_BYTES : 0;
        }
        if (watches[i].access & ACCESS_WRITE && overlaps(&watches[i], first, size)) {
            word.which = i;
            *(struct record *)ring_slot(&page->hits, sizeof(word)) = word;
            await_page(&page->hits);
        }
    }
}

/* A store into a page tells where the words lie that a delivery pushed there just before:
 * handlers begin by saving registers below them. */
static void place_pushed(plugin_mem_info info, uint64_t vaddr, uint64_t position)
{
    uint16_t flags = 0;
    uint64_t paddr = physical(info, vaddr, &flags);
    unsigned left = 0;

    for (unsigned i = 0; i < pushed_words; i++) {
        struct area *ring = pushed[i].ring;
        struct record *word = (struct record *)table(ring) + pushed[i].number % ring->capacity;

        if (ring->total - pushed[i].number > ring->capacity ||
            position - word->position > PUSHED_FOR) {
            continue; /* overwritten, or too long ago to be sure */
        }
        if ((word->vaddr ^ vaddr) & -(uint64_t)PAGE_BYTES || flags) {
            pushed[left++] = pushed[i];
            continue;
        }
        word->paddr = (paddr & -(uint64_t)PAGE_BYTES) | (word->vaddr & (PAGE_BYTES - 1));
        word->flags &= ~RECORD_NO_PADDR;
    }
    pushed_words = left;
}

static void on_access(unsigned vcpu, plugin_mem_info info, uint64_t vaddr, void *pc)
{
    uint64_t position = *count - 1;

    (void)vcpu;
    if (pushed_words && qemu_plugin_mem_is_store(info)) {
        place_pushed(info, vaddr, position);
    }
    if (interesting(vaddr) && recording_at(position)) {
        accessed(info, vaddr, (uintptr_t)pc, position, 0, true);
    }
}

static void on_store(unsigned vcpu, plugin_mem_info info, uint64_t vaddr, void *pc)
{
    uint64_t position = *count - 1;

    (void)vcpu;
    if (pushed_words) {
        place_pushed(info, vaddr, position);
    }
    if (recording_at(position)) {
        accessed(info, vaddr, (uintptr_t)pc, position, 0, page->features & FEATURE_WATCH);
    }
}

static void on_suspect_access(unsigned vcpu, plugin_mem_info info, uint64_t vaddr, void *pc)
{
    uint64_t position = *count - 1 + attempt;

    (void)vcpu;
    if (recording_at(position)) {
        accessed(info, vaddr, (uintptr_t)pc, position, attempt ? RECORD_ATTEMPT : 0,
                 page->features & FEATURE_WATCH);
    }
}

void take_over_watches(void)
{
    const struct watch *watches = table(&page->watches);

    pushed_words = 0;
    memset(watched_pages, 0, sizeof(watched_pages));
    watched_low = ~UINT64_C(0);
    watched_high = 0;
    watching_physical = false;
    for (uint32_t i = 0; i < page->watches.total; i++) {
        watching_physical |= watches[i].physical;
    }
    for (uint32_t i = 0; i < page->watches.total; i++) {
        /* Once a physical watch is there, all watches are filtered by offset. */
        unsigned shift = watching_physical ? 6 : 12;
        uint64_t first = watches[i].first >> shift, last = watches[i].last >> shift;

        if (last - first >= UINT64_C(1) << 16) {
            memset(watched_pages, 0xff, sizeof(watched_pages));
        }
        for (uint64_t number = first; number - first <= last - first; number++) {
            uint64_t bit = (watching_physical ? number & 63 : number) *
                               UINT64_C(0x9e3779b97f4a7c15) >> 48;
            watched_pages[bit >> 6] |= UINT64_C(1) << (bit & 63);
            if (number - first >= UINT64_C(1) << 16) {
                break;
            }
        }
        first = watches[i].first < 15 ? 0 : watches[i].first - 15; /* a 16-byte access */
        watched_low = first < watched_low ? first : watched_low;
        watched_high = watches[i].last > watched_high ? watches[i].last : watched_high;
    }
}

void log_accesses(struct qemu_plugin_insn *insn, bool suspect)
{
    void *pc = (void *)(uintptr_t)qemu_plugin_insn_vaddr(insn);
    const struct watch *watches = table(&page->watches);
    bool all_stores = page->features & FEATURE_WRITES;
    int access = 0;

    for (uint32_t i = 0; page->features & FEATURE_WATCH && i < page->watches.total; i++) {
        access |= watches[i].access;
    }
    if (access && suspect) {
        access |= all_stores ? ACCESS_WRITE : 0;
        qemu_plugin_register_vcpu_mem_cb(insn, on_suspect_access, CALLBACK_NO_REGS, access, pc);
        return;
    }
    if (all_stores) {
        qemu_plugin_register_vcpu_mem_cb(insn, suspect ? on_suspect_access : on_store,
                                         CALLBACK_NO_REGS, ACCESS_WRITE, pc);
        access &= ~ACCESS_WRITE;
    }
    if (access) {
        qemu_plugin_register_vcpu_mem_cb(insn, on_access, CALLBACK_NO_REGS, access, pc);
    }
}

