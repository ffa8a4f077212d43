/*
 * The probe: retrograde's eyes inside a QEMU that replays a recording.
 *
 * Counts retired instructions exactly (docs/probe.md says how and why it is hard) and
 * records what it is asked to: executed breakpoints, memory accesses, stores, steps and
 * register changes, each with its position. Everything goes through one shared page
 * (probe_page.h); what is not asked for is not compiled into the guest's translated code.
 *
 * One vCPU only, as record/replay demands; so all state here is plain.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "probe_page.h"
#include "qemu_plugin_abi.h"

PROBE_EXPORT int qemu_plugin_version = PROBE_API_VERSION;

/* Instrumentation switches over this many instructions early: a block that asks for new
 * translations runs to its end first, and blocks have at most 512 instructions. */
#define LEAD 2048

/* The smallest page of any target; a piece may end early elsewhere, which is harmless. */
#define PAGE_BYTES 4096

#define MAX_REGISTERS 512
#define MAX_REGISTER_BYTES 256
#define NAME_BYTES 32

enum mode {
    MODE_UNSETTLED, /* the next translation decides */
    MODE_EARLY,     /* `from` is far: only count */
    MODE_ACTIVE,
    MODE_OVER, /* past `until`: do nothing */
};

/* How a block that may begin an instruction a second time has to be counted. */
enum rerun { RERUN_NONE, RERUN_SUSPECT, RERUN_CERTAIN };

static plugin_id self;
static struct page *page;
static enum mode mode;

/* QEMU's instruction count (accel/tcg/icount-common.c). Part of no plugin API, but builds
 * with loadable modules export it, which those of all big distributions are. Counting
 * alone is not exact (docs/probe.md), so where it is missing the probe refuses. */
extern int64_t icount_get_raw(void) __attribute__((weak));

static struct qemu_plugin_scoreboard *board;
static plugin_u64 retired;    /* what generated code adds to */
static uint64_t *count;       /* the same: instructions begun, faulting ones corrected */
static uint64_t attempt;      /* 1 in a block whose instruction is about to fault */
static bool based;

static glib_array *descriptors;
static glib_byte_array *buffer;
static struct qemu_plugin_register *registers[MAX_REGISTERS];
static uint8_t last_value[MAX_REGISTERS][MAX_REGISTER_BYTES];
static int last_size[MAX_REGISTERS];

/* x86 keeps its arithmetic flags unevaluated; see flags_of_x86. */
extern uint32_t helper_read_eflags(void *env) __attribute__((weak));
static bool is_x86_64;
static struct qemu_plugin_register *eflags, *general[16];
static const uint64_t *env, *env_candidate;
static uint64_t candidate_values[16];

static uint64_t watched_pages[1024]; /* a set of hashed page numbers (or offsets), one bit each */
static uint64_t watched_low, watched_high;
static bool watching_physical;

static void *table(const struct area *area)
{
    return (char *)page + area->offset;
}

static void *ring_slot(struct area *area, size_t size)
{
    return (char *)page + area->offset + area->total++ % area->capacity * size;
}

static bool recording_at(uint64_t position)
{
    return position - page->from < page->until - page->from;
}

/* ---- Position ------------------------------------------------------------------- */

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
static enum rerun locate(size_t instructions)
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

/* ---- Recording ------------------------------------------------------------------ */

static uint64_t operand(const struct condition *condition, bool *readable)
{
    uint64_t value = 0;
    int size = condition->size;

    g_byte_array_set_size(buffer, 0);
    if (condition->in_memory) {
        *readable = qemu_plugin_read_memory_vaddr(condition->address, buffer, size);
    } else {
        size = qemu_plugin_read_register(registers[condition->reg], buffer);
        *readable = size > 0;
    }
    if (!*readable) {
        return 0;
    }
    for (int i = 0; i < size && i < 8; i++) {
        value |= (uint64_t)buffer->data[page->big_endian ? size - 1 - i : i] << 8 * i;
    }
    return value;
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

static void on_access(unsigned vcpu, plugin_mem_info info, uint64_t vaddr, void *pc)
{
    uint64_t position = *count - 1;

    (void)vcpu;
    if (interesting(vaddr) && recording_at(position)) {
        accessed(info, vaddr, (uintptr_t)pc, position, 0, true);
    }
}

static void on_store(unsigned vcpu, plugin_mem_info info, uint64_t vaddr, void *pc)
{
    uint64_t position = *count - 1;

    (void)vcpu;
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

/*
 * QEMU's gdb view of eflags lacks the arithmetic flags while translated code runs: they
 * are computed on demand from other fields of the CPU's state (target/i386/gdbstub.c,
 * helper_read_eflags). Builds that export the helper also export current_cpu; the state
 * follows it at a distance that differs by build, so it is found by its contents: the 16
 * general registers come first in it, and the place that holds all of them at two moments
 * with different values is it.
 */
static void find_env(void)
{
    void **slot = dlsym(RTLD_DEFAULT, "current_cpu");
    const uint64_t *memory = slot ? *slot : NULL;
    size_t words = memory ? malloc_usable_size(*slot) / 8 : 0;
    uint64_t values[16];
    unsigned matches = 0;

    for (int i = 0; i < 16; i++) {
        g_byte_array_set_size(buffer, 0);
        if (!general[i] || qemu_plugin_read_register(general[i], buffer) != 8) {
            return;
        }
        memcpy(&values[i], buffer->data, 8);
    }
    if (env_candidate && memcmp(values, candidate_values, sizeof(values)) &&
        !memcmp(values, env_candidate, sizeof(values))) {
        env = env_candidate;
        return;
    }
    for (size_t at = 0; at + 16 <= words; at++) {
        if (!memcmp(memory + at, values, sizeof(values))) {
            env_candidate = memory + at;
            matches++;
        }
    }
    if (matches != 1) {
        env_candidate = NULL;
    }
    memcpy(candidate_values, values, sizeof(values));
}

static void complete_flags(void)
{
    const uint32_t arithmetic = 0xcd5; /* CF PF AF ZF SF DF OF */
    uint32_t flags;

    if (!helper_read_eflags || !env) {
        page->registers_doubtful = 1;
        return;
    }
    memcpy(&flags, buffer->data, 4);
    flags = (flags & ~arithmetic) | (helper_read_eflags((void *)env) & arithmetic);
    memcpy(buffer->data, &flags, 4);
}

static void put_changes(uint64_t position)
{
    if (is_x86_64 && !env) {
        find_env();
    }
    if (!recording_at(position)) {
        return;
    }
    for (uint16_t reg = 0; reg < page->registers.total; reg++) {
        g_byte_array_set_size(buffer, 0);
        int size = registers[reg] ? qemu_plugin_read_register(registers[reg], buffer) : 0;

        if (is_x86_64 && size == 4 && registers[reg] == eflags) {
            complete_flags();
        }
        if (size <= 0 || size > MAX_REGISTER_BYTES ||
            (size == last_size[reg] && !memcmp(last_value[reg], buffer->data, size))) {
            continue;
        }
        for (int at = 0; at < size; at += 16) {
            int part = size - at < 16 ? size - at : 16;
            struct change *change;

            if (size == last_size[reg] &&
                !memcmp(last_value[reg] + at, buffer->data + at, part)) {
                continue;
            }
            change = ring_slot(&page->changes, sizeof(*change));
            *change = (struct change){.position = position, .reg = reg, .slice = at / 16,
                                      .size = part};
            memcpy(change->bytes, buffer->data + at, part);
        }
        memcpy(last_value[reg], buffer->data, size);
        last_size[reg] = size;
    }
}

static void on_registers(unsigned vcpu, void *unused)
{
    (void)vcpu, (void)unused;
    put_changes(*count);
}

static void on_suspect_registers(unsigned vcpu, void *unused)
{
    (void)vcpu, (void)unused;
    put_changes(*count + attempt);
}

/* ---- Translation ---------------------------------------------------------------- */

static void install_callbacks(plugin_id id);

static void switch_mode(unsigned vcpu, void *unused)
{
    (void)vcpu, (void)unused;
    /* The only way to have all blocks translated anew from inside; takes effect at the
     * next block boundary, and more requests until then are ignored. */
    qemu_plugin_reset(self, install_callbacks);
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

static void watch_accesses(struct qemu_plugin_insn *insn, void *pc, bool suspect)
{
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

static void instrument(struct qemu_plugin_insn *insn, enum rerun rerun)
{
    void *pc = (void *)(uintptr_t)qemu_plugin_insn_vaddr(insn);
    bool suspect = rerun == RERUN_SUSPECT;
    int which;

    if (rerun != RERUN_CERTAIN) { /* its first attempt has been reported */
        if (page->features & FEATURE_STEPS) {
            qemu_plugin_register_vcpu_insn_exec_cb(insn, suspect ? on_suspect_step : on_step,
                                                   CALLBACK_NO_REGS, pc);
        }
        if (page->features & FEATURE_REGISTERS) {
            qemu_plugin_register_vcpu_insn_exec_cb(
                insn, suspect ? on_suspect_registers : on_registers, CALLBACK_READS_REGS, NULL);
        }
        if (page->features & FEATURE_BREAK && (which = breakpoint_index((uintptr_t)pc)) >= 0) {
            qemu_plugin_register_vcpu_insn_exec_cb(
                insn, suspect ? at_suspect_breakpoint : at_breakpoint, CALLBACK_READS_REGS,
                (void *)(uintptr_t)which);
        }
    }
    if (page->features & (FEATURE_WATCH | FEATURE_WRITES)) {
        watch_accesses(insn, pc, suspect);
    }
}

static void note_watched(void)
{
    const struct watch *watches = table(&page->watches);

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

static struct qemu_plugin_register *find_register(const char *name)
{
    const plugin_register_descriptor *known = (void *)descriptors->data;

    for (unsigned i = 0; i < descriptors->len; i++) {
        if (!strncmp(known[i].name, name, NAME_BYTES)) {
            return known[i].handle;
        }
    }
    return NULL;
}

static void find_registers(void)
{
    /* In the order of QEMU's CPUX86State.regs. */
    static const char *const x86[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                        "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
    const char(*names)[NAME_BYTES] = table(&page->registers);

    page->unknown_register = 0;
    page->registers_doubtful = 0;
    memset(last_size, 0, sizeof(last_size));
    for (int i = 0; i < 16; i++) {
        general[i] = find_register(x86[i]);
    }
    eflags = find_register("eflags");
    for (uint32_t i = 0; i < page->registers.total; i++) {
        registers[i] = find_register(names[i]);
        if (!registers[i] && !page->unknown_register) {
            page->unknown_register = i + 1;
        }
    }
}

/* First translation after a flush: take over what Python asks for from here on. */
static void settle(void)
{
    if (*count >= page->until) {
        mode = MODE_OVER;
    } else if (*count + LEAD < page->from) {
        mode = MODE_EARLY;
    } else {
        mode = MODE_ACTIVE;
    }
    note_watched();
    find_registers();
    if (mode == MODE_ACTIVE) {
        page->active_from = *count;
    }
    page->active_generation = page->generation;
}

static void translate(plugin_id id, struct qemu_plugin_tb *tb)
{
    size_t instructions = qemu_plugin_tb_n_insns(tb);
    enum rerun rerun;

    (void)id;
    if (mode == MODE_OVER) {
        return;
    }
    rerun = locate(instructions);
    if (mode == MODE_UNSETTLED) {
        settle();
    }
    if (mode == MODE_OVER) {
        return;
    }
    page->blocks++;
    if (page->features & FEATURE_REGISTERS && mode == MODE_ACTIVE && instructions > 1) {
        page->registers_doubtful = 1; /* pc and lazy flags are stale inside a block */
    }
    if (rerun == RERUN_SUSPECT) {
        qemu_plugin_register_vcpu_tb_exec_cb(tb, suspect_begins, CALLBACK_NO_REGS, NULL);
    } else if (rerun == RERUN_CERTAIN) {
        qemu_plugin_register_vcpu_tb_exec_cb(tb, rerun_begins, CALLBACK_NO_REGS,
                                             (void *)instructions);
    }
    if (page->features & FEATURE_AUDIT && rerun == RERUN_NONE) {
        qemu_plugin_register_vcpu_tb_exec_cb(tb, audit_block, CALLBACK_NO_REGS,
                                             (void *)instructions);
    }
    if (mode == MODE_EARLY) {
        qemu_plugin_register_vcpu_tb_exec_cond_cb(tb, switch_mode, CALLBACK_NO_REGS,
                                                  CONDITION_GE, retired, page->from - LEAD,
                                                  NULL);
    } else if (page->until != ~UINT64_C(0)) {
        qemu_plugin_register_vcpu_tb_exec_cond_cb(tb, switch_mode, CALLBACK_NO_REGS,
                                                  CONDITION_GE, retired, page->until, NULL);
    }
    for (size_t i = 0; i < instructions; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);

        if (mode == MODE_ACTIVE) {
            instrument(insn, rerun);
        }
        qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(insn, INLINE_ADD_U64, retired, 1);
    }
}

/* All translations are gone: after loadvm, a reset of ours, or a full code buffer. */
static void flushed(plugin_id id)
{
    mode = MODE_UNSETTLED;
    based = false;
    qemu_plugin_register_vcpu_tb_trans_cb(id, page->features ? translate : NULL);
}

static void vcpu_ready(plugin_id id, unsigned vcpu)
{
    (void)id;
    if (vcpu == 0) {
        count = qemu_plugin_scoreboard_find(board, 0);
        descriptors = qemu_plugin_get_registers();
    }
}

static void install_callbacks(plugin_id id)
{
    qemu_plugin_register_vcpu_init_cb(id, vcpu_ready);
    qemu_plugin_register_flush_cb(id, flushed);
    flushed(id);
}

PROBE_EXPORT int qemu_plugin_install(plugin_id id, const plugin_info *info, int argc, char **argv)
{
    struct stat status;
    int fd = -1;

    if (argc != 1 || sscanf(argv[0], "fd=%d", &fd) != 1 || fstat(fd, &status) ||
        (size_t)status.st_size < sizeof(*page)) {
        fprintf(stderr, "retrograde probe: needs fd=N, an inherited memory file\n");
        return -1;
    }
    if (!info->system_emulation || info->system.max_vcpus != 1) {
        fprintf(stderr, "retrograde probe: needs system emulation with one vCPU\n");
        return -1;
    }
    if (!icount_get_raw) {
        fprintf(stderr, "retrograde probe: this QEMU does not export its instruction count\n");
        return -1;
    }
    page = mmap(NULL, status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED || page->magic != PAGE_MAGIC || page->version != PAGE_VERSION ||
        page->bytes != (uint64_t)status.st_size) {
        fprintf(stderr, "retrograde probe: the memory file is of another version\n");
        return -1;
    }
    self = id;
    is_x86_64 = !strcmp(info->target_name, "x86_64");
    board = qemu_plugin_scoreboard_new(sizeof(uint64_t));
    retired = (plugin_u64){board, 0};
    buffer = g_byte_array_new();
    page->api = info->version.cur;
    page->loaded = PAGE_VERSION;
    install_callbacks(id);
    return 0;
}
