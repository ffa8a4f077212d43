/*
 * The probe: retrograde's eyes inside a QEMU that replays a recording.
 *
 * Counts retired instructions exactly and records what it is asked to: breakpoints
 * reached, memory accesses, stores, steps and register changes, each with its position.
 * Everything goes through one shared page (probe_page.h); what is not asked for is not
 * compiled into the guest's translated code. This file loads, translates and switches;
 * docs/probe.md tells the whole.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "probe.h"

PROBE_EXPORT int qemu_plugin_version = PROBE_API_VERSION;

/* Instrumentation switches over this many instructions early: a block that asks for new
 * translations runs to its end first, and blocks have at most 512 instructions. */
#define LEAD 2048

enum mode {
    MODE_UNSETTLED, /* the next translation decides */
    MODE_EARLY,     /* `from` is far: only count */
    MODE_ACTIVE,
    MODE_OVER, /* past `until`: do nothing */
};

struct page *page;
glib_byte_array *buffer;

static plugin_id self;
static enum mode mode;
static struct qemu_plugin_scoreboard *board;
static plugin_u64 begun; /* what generated code adds to: `count` */

static void install_callbacks(CALLBACK_ALONE);

static void switch_mode(unsigned vcpu, void *unused)
{
    (void)vcpu, (void)unused;
    /* The only way to have all blocks translated anew from inside; takes effect at the
     * next block boundary, and more requests until then are ignored. */
    qemu_plugin_reset(self, install_callbacks NO_DATA);
}

static bool may_hit(struct qemu_plugin_tb *tb, size_t instructions)
{
    for (size_t i = 0; i < instructions; i++) {
        if (may_break(qemu_plugin_insn_vaddr(qemu_plugin_tb_get_insn(tb, i)))) {
            return true;
        }
    }
    return false;
}

static void instrument(struct qemu_plugin_insn *insn, enum rerun rerun)
{
    bool suspect = rerun == RERUN_SUSPECT;

    if (rerun != RERUN_CERTAIN) { /* its first attempt has been reported */
        if (page->features & FEATURE_MOMENTS) {
            follow_instruction(insn);
        }
        log_execution(insn, suspect);
        if (page->features & FEATURE_MOMENTS) {
            remember_instruction(insn);
        }
        if (page->features & FEATURE_REGISTERS) {
            log_registers(insn, suspect);
        }
    }
    if (page->features & (FEATURE_WATCH | FEATURE_WRITES)) {
        log_accesses(insn, suspect);
    }
    if (page->features & FEATURE_WRITTEN) {
        log_written(insn);
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
    take_over_breakpoints();
    take_over_watches();
    take_over_registers();
    take_over_deliveries();
    if (page->features & FEATURE_MOMENTS) {
        take_over_moments(board);
    }
    if (page->features & FEATURE_BLOCKS) {
        take_over_coverage();
        take_over_written(isa->space && !isa->opcodes);
    }
    if (mode == MODE_ACTIVE) {
        page->active_from = *count;
    }
    page->active_generation = page->generation;
}

static void translate(CALLBACK_WITH(struct qemu_plugin_tb *tb))
{
    size_t instructions = qemu_plugin_tb_n_insns(tb);
    enum rerun rerun;

    (void)unused;
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
    page->translated++;
    if (page->features & FEATURE_REGISTERS && mode == MODE_ACTIVE && instructions > 1) {
        page->registers_doubtful = 1; /* pc and lazy flags are stale inside a block */
    }
    watch_position(tb, instructions, rerun);
    if (mode == MODE_ACTIVE && page->features & FEATURE_BLOCKS) {
        log_block(tb, instructions, rerun == RERUN_SUSPECT);
    } else if (mode == MODE_ACTIVE && page->features & (FEATURE_WATCH | FEATURE_WRITES | FEATURE_TRAPS)) {
        log_deliveries(tb, qemu_plugin_insn_vaddr(qemu_plugin_tb_get_insn(tb, 0)),
                       rerun == RERUN_SUSPECT);
    }
    if (mode == MODE_ACTIVE && page->features & FEATURE_MOMENTS) {
        follow_block(tb, may_hit(tb, instructions));
    }
    if (mode == MODE_EARLY) {
        qemu_plugin_register_vcpu_tb_exec_cond_cb(tb, switch_mode, CALLBACK_NO_REGS,
                                                  CONDITION_GE, begun, page->from - LEAD,
                                                  NULL);
    } else if (page->until != ~UINT64_C(0)) {
        qemu_plugin_register_vcpu_tb_exec_cond_cb(tb, switch_mode, CALLBACK_NO_REGS,
                                                  CONDITION_GE, begun, page->until, NULL);
    }
    for (size_t i = 0; i < instructions; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);

        if (mode == MODE_ACTIVE) {
            instrument(insn, rerun);
        }
        qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(
            insn, INLINE_ADD_U64, begun, halts(insn) ? instructions - i : 1);
    }
}

/* All translations are gone: after loadvm, a reset of ours, or a full code buffer. */
static void flushed(CALLBACK_ALONE)
{
    (void)unused;
    mode = MODE_UNSETTLED;
    forget_position();
    forget_blocks();
    qemu_plugin_register_vcpu_tb_trans_cb(self, page->features ? translate : NULL NO_DATA);
}

static void vcpu_ready(CALLBACK_WITH(unsigned vcpu))
{
    (void)unused;
    if (vcpu == 0) {
        count = qemu_plugin_scoreboard_find(board, 0);
    }
}

static void install_callbacks(CALLBACK_ALONE)
{
    qemu_plugin_register_vcpu_init_cb(self, vcpu_ready NO_DATA);
    qemu_plugin_register_flush_cb(self, flushed NO_DATA);
    flushed(unused);
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
    choose_isa(info->target_name);
    board = qemu_plugin_scoreboard_new(sizeof(struct counters));
    begun = (plugin_u64){board, offsetof(struct counters, begun)};
    buffer = g_byte_array_new();
    page->api = info->version.cur;
    page->drops_code = offer_to_drop_code();
    page->loaded = PAGE_VERSION;
    install_callbacks(0);
    return 0;
}
