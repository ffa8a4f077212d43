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

/* The physical address: QEMU answers from the TLB entry the access just used. */
static uint64_t physical(plugin_mem_info info, uint64_t vaddr, uint16_t *flags)
{
    struct qemu_plugin_hwaddr *answer = qemu_plugin_get_hwaddr(info, vaddr);

    if (!answer) {
        *flags |= RECORD_NO_PADDR;
        return NOWHERE;
    }
    if (qemu_plugin_hwaddr_is_io(answer)) {
        *flags |= RECORD_IO;
    }
    return qemu_plugin_hwaddr_phys_addr(answer);
}

/* Bytes of an access that are in the page it begins in. */
static unsigned in_first_page(uint64_t vaddr, unsigned size)
{
    unsigned room = PAGE_BYTES - (vaddr & (PAGE_BYTES - 1));

    return size < room ? size : room;
}

/* The bytes an access moved. Its own byte order counts: there are instructions for either. */
static void take_data(struct record *access, plugin_mem_info info)
{
    plugin_mem_value value = qemu_plugin_mem_get_value(info);
    bool big_endian = qemu_plugin_mem_is_big_endian(info);

    for (unsigned i = 0; i < access->size; i++) {
        unsigned significance = big_endian ? access->size - 1 - i : i;
        uint64_t word = access->size < 16 ? value.data.u64
                        : significance < 8 ? value.data.u128.low : value.data.u128.high;
        access->data[i] = word >> 8 * (significance & 7);
    }
    access->flags |= big_endian ? RECORD_BIG_ENDIAN : 0;
}

static bool overlaps(const struct watch *watch, uint64_t first, uint64_t size)
{
    return first <= watch->last && first + size - 1 >= watch->first;
}

/* Whether the bytes of an access concern a watch; in physical memory its pages lie apart. */
static bool concerns(const struct record *access, const struct watch *watch)
{
    unsigned here = in_first_page(access->vaddr, access->size);

    if (!(watch->access & (access->flags & RECORD_STORE ? ACCESS_WRITE : ACCESS_READ))) {
        return false;
    }
    if (!watch->physical) {
        return overlaps(watch, access->vaddr, access->size);
    }
    return overlaps(watch, access->paddr, here) ||
           (here < access->size && overlaps(watch, access->beyond, access->size - here));
}

static bool find_watch(struct record *access)
{
    const struct watch *watches = table(&page->watches);

    for (uint32_t i = 0; i < page->watches.total; i++) {
        if (concerns(access, &watches[i])) {
            access->which = i;
            return true;
        }
    }
    return false;
}

static void accessed(plugin_mem_info info, uint64_t vaddr, uint64_t pc, uint64_t position,
                     uint16_t flags, bool watched)
{
    struct record access = {.position = position, .pc = pc, .vaddr = vaddr, .beyond = NOWHERE};
    unsigned here;
    bool logged;

    access.flags = flags | RECORD_ACCESS | (qemu_plugin_mem_is_store(info) ? RECORD_STORE : 0);
    access.size = 1 << qemu_plugin_mem_size_shift(info);
    access.paddr = physical(info, vaddr, &access.flags);
    here = in_first_page(vaddr, access.size);
    if (here < access.size) {
        access.beyond = physical(info, vaddr + here, &access.flags);
    }
    watched = watched && find_watch(&access);
    logged = page->features & FEATURE_WRITES && access.flags & RECORD_STORE;
    if (!watched && !logged) {
        return;
    }
    take_data(&access, info);
    if (watched) {
        *(struct record *)ring_slot(&page->hits, sizeof(access)) = access;
    }
    if (logged) {
        access.which = 0;
        *(struct record *)ring_slot(&page->writes, sizeof(access)) = access;
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

static void put_pushed(struct area *ring, const struct record *word)
{
    *(struct record *)ring_slot(ring, sizeof(*word)) = *word;
    if (word->flags & RECORD_NO_PADDR && pushed_words < MAX_PUSHED) {
        pushed[pushed_words++] = (struct pushed){ring, ring->total - 1};
    }
}

/*
 * Record a word that the delivery of an interrupt or exception pushed. Where its physical
 * address is not known yet, a physical watch takes what could be in it, having the same
 * place in its page; Python drops what turns out not to be.
 */
void record_delivered(uint64_t position, uint64_t pc, uint64_t vaddr, unsigned size)
{
    const struct watch *watches = table(&page->watches);
    struct record word = {.position = position, .pc = pc, .vaddr = vaddr,
                          .paddr = NOWHERE, .beyond = NOWHERE, .size = size,
                          .flags = RECORD_ACCESS | RECORD_STORE | RECORD_NO_PADDR |
                                   RECORD_DELIVERY};
    uint64_t value;
    bool readable;

    if (page->features & FEATURE_WRITTEN) {
        mark_delivered(vaddr, size);
    }
    if (!(page->features & (FEATURE_WATCH | FEATURE_WRITES))) {
        return;
    }
    if (in_first_page(vaddr, size) == size) { /* else, and where QEMU does not say, a store tells */
        word.paddr = physical_address(vaddr);
        word.flags &= word.paddr == NOWHERE ? ~0 : ~RECORD_NO_PADDR;
    }
    value = memory_value(vaddr, size, &readable);
    for (unsigned i = 0; i < size; i++) { /* only x86's deliveries push */
        word.data[i] = value >> 8 * i;
    }
    if (page->features & FEATURE_WRITES) {
        put_pushed(&page->writes, &word);
    }
    for (uint32_t i = 0; page->features & FEATURE_WATCH && i < page->watches.total; i++) {
        uint64_t first = vaddr;

        if (watches[i].physical) { /* the word of the watched page it would be */
            first = (watches[i].first & -(uint64_t)PAGE_BYTES) | (vaddr & (PAGE_BYTES - 1));
            first += first + size - 1 < watches[i].first ? PAGE_BYTES : 0;
        }
        if (watches[i].access & ACCESS_WRITE && overlaps(&watches[i], first, size)) {
            word.which = i;
            put_pushed(&page->hits, &word);
        }
    }
}

/*
 * Log what is in memory from `vaddr` on, where a delivery may have pushed it or not: either
 * way it is there from now on. What is not RAM is left out, as no frame of ours is there.
 */
void record_present(uint64_t position, uint64_t pc, uint64_t vaddr, unsigned size)
{
    while (size) {
        struct record here = {.position = position, .pc = pc, .vaddr = vaddr,
                              .paddr = physical_address(vaddr), .beyond = NOWHERE,
                              .flags = RECORD_ACCESS | RECORD_STORE | RECORD_DELIVERY};

        here.size = in_first_page(vaddr, size < sizeof(here.data) ? size : sizeof(here.data));
        vaddr += here.size;
        size -= here.size;
        if (here.paddr == NOWHERE || !is_ram(here.paddr & -(uint64_t)PAGE_BYTES) ||
            !qemu_plugin_read_memory_vaddr(here.vaddr, buffer, here.size)) {
            continue;
        }
        memcpy(here.data, buffer->data, here.size);
        *(struct record *)ring_slot(&page->writes, sizeof(here)) = here;
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
        if (in_first_page(word->vaddr, word->size) < word->size) {
            /* Only in real mode does a stack begin anywhere, and there no page lies apart. */
            word->beyond = (paddr & -(uint64_t)PAGE_BYTES) + PAGE_BYTES;
        }
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

