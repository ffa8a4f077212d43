/*
 * What the parts of the probe share. One vCPU only, as record/replay demands, so all
 * state is plain variables.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef RETROGRADE_PROBE_H
#define RETROGRADE_PROBE_H

#include <string.h>

#include "probe_page.h"
#include "qemu_plugin_abi.h"

#define MAX_REGISTERS 512
#define MAX_REGISTER_BYTES 256
#define NAME_BYTES 32

/* How a block that may begin an instruction a second time has to be counted. */
enum rerun { RERUN_NONE, RERUN_SUSPECT, RERUN_CERTAIN };

/* QEMU's instruction count (accel/tcg/icount-common.c). Part of no plugin API, but builds
 * with loadable modules export it, which those of all big distributions are. Counting
 * alone is not exact (docs/probe.md), so where it is missing the probe refuses. */
extern int64_t icount_get_raw(void) __attribute__((weak));

extern struct page *page;
extern glib_byte_array *buffer; /* scratch of whoever reads a register or memory */

static inline void *table(const struct area *area)
{
    return (char *)page + area->offset;
}

static inline void *ring_slot(struct area *area, size_t size)
{
    return (char *)page + area->offset + area->total++ % area->capacity * size;
}

static inline bool recording_at(uint64_t position)
{
    return position - page->from < page->until - page->from;
}

/* code.c */
bool offer_to_drop_code(void);

/* position.c */
extern uint64_t *count;  /* position of the next instruction to begin */
extern uint64_t attempt; /* 1 in a suspect block whose instruction is about to fault */
void forget_position(void);
enum rerun locate(size_t instructions);
void watch_position(struct qemu_plugin_tb *tb, size_t instructions, enum rerun rerun);

/* isa.c */
enum control_kind { CONTROL_NONE, CONTROL_CALL, CONTROL_RETURN, CONTROL_MAPPING, CONTROL_SYSTEM };

struct opcode {
    uint32_t mask, value;
    enum control_kind kind;
};

struct field {
    const char *name; /* of the register; NULL: none */
    uint8_t shift, mask;
};

#define MAX_GENERAL 32
#define MAX_SAVED 3

struct isa {
    const char *target;
    const struct opcode *opcodes; /* the first that fits; ends with a mask of 0; NULL on x86 */
    const char *const *general;   /* in the order of QEMU's CPU state */
    uint8_t generals, word;       /* how many, and bytes of each */
    const char *pc;               /* comes behind them in the CPU state; NULL: it does not */
    uint8_t pushes;               /* bytes a call pushes; 0: it has a link register */
    uint8_t sp, arguments[6];     /* numbers of general registers */
    const char *space;            /* NULL: calls and context are not known */
    struct field level;
    uint8_t user; /* the level at which every address space has its own stacks */
    struct field wide;
    uint8_t wide_value; /* of `wide` where calls are told, in 64-bit code */
    uint32_t halt;      /* leaves its block early, and QEMU counts the rest as if it had run */
    const char *order;  /* while bit 0 of it is set, registers and code are little-endian */
    const char *stack;  /* points to what an interrupt or exception pushed; NULL: not known */
    uint8_t frame;      /* bytes that one pushes at most, where it is not known exactly */
    struct {
        uint8_t level; /* of the handler */
        const char *pc, *status;
    } saved[MAX_SAVED]; /* where an interrupt or exception leaves what it interrupted */
};

extern const struct isa *isa;
void choose_isa(const char *target);

/* control.c */
struct control {
    enum control_kind kind;
    unsigned popped; /* bytes a return takes off the stack besides its address */
};
struct control control_of(const struct qemu_plugin_insn *insn, bool big_endian);
bool halts(const struct qemu_plugin_insn *insn);

/* coverage.c */
void take_over_coverage(void);
void forget_blocks(void);
void log_block(struct qemu_plugin_tb *tb, size_t instructions, bool suspect);

/* calls.c */
void forget_calls(void);
void transferred(struct control control, uint64_t position, uint64_t return_pc, uint64_t pc,
                 uint64_t now_pc, bool delivered);
void look_at_context(uint64_t position);

/* written.c */
void take_over_written(bool x86_64);
void log_written(struct qemu_plugin_insn *insn);
void forget_lines(void);
void mark_delivered(uint64_t vaddr, unsigned size);
uint64_t physical_address(uint64_t vaddr);
bool can_place(void);

/* moments.c */
void take_over_moments(struct qemu_plugin_scoreboard *board);
void follow_block(struct qemu_plugin_tb *tb, bool may_hit);
void follow_instruction(struct qemu_plugin_insn *insn);
void remember_instruction(struct qemu_plugin_insn *insn);
void keep_moment(uint64_t position, uint64_t vaddr);
bool is_ram(uint64_t paddr);

/* What the scoreboard of the vCPU has. */
struct counters {
    uint64_t begun;   /* `count` */
    uint64_t pending; /* whether the moment kept last wants to know what comes after it */
    uint64_t last;    /* where the instruction begun last was translated */
};

/* frame.c */
bool find_frame(uint64_t *top);
bool find_gates(uint64_t *base, uint64_t *limit);
void take_over_frames(glib_array *known);

/* trap.c */
void tell(struct trap *trap, enum trap_flag what, uint64_t value);
void record_trap(uint64_t position, uint64_t pc, uint64_t number);
void take_over_traps(glib_array *known);

/* gates.c */
void tell_x86(struct trap *trap);
void take_over_gates(glib_array *known);

/* registers.c */
void take_over_registers(void);
struct qemu_plugin_register *find_register(glib_array *list, const char *name);
uint64_t value_of(struct qemu_plugin_register *handle, bool *readable);
uint64_t ordered_value(struct qemu_plugin_register *handle);
extern const uint8_t *env; /* of x86 and where calls are known: QEMU's CPU state, once it is found */
uint64_t register_value(uint32_t index, bool *readable);
uint64_t number_at(const uint8_t *bytes, unsigned size, bool big_endian);
unsigned copy_register(uint32_t index, uint8_t *to, unsigned room);
void look_for_flags(struct qemu_plugin_insn *insn);
uint64_t memory_value(uint64_t address, unsigned size, bool *readable);
bool in_long_mode(void);
bool in_real_mode(void);
uint64_t stack_top(void);
void *this_vcpu(void);
uint64_t general_register(unsigned number);
uint64_t address_space(void);
unsigned privilege(void);
bool in_wide_code(void);
bool runs_anywhere(uint64_t at);
uint64_t viewed_pc(void);
void track_pc(void);
extern bool asks_pc; /* whether a block that begins may be at another address than translated */
extern const uint8_t *pc_at; /* where the pc is to be read, or NULL: by viewed_pc */

/* Where the block that runs begins, or a later instruction of it, up to the one that runs. */
static inline uint64_t current_pc(void)
{
    uint64_t value;

    if (!pc_at) {
        return viewed_pc();
    }
    memcpy(&value, pc_at, sizeof(value));
    return value;
}

bool is_big_endian(void);
void find_interrupted(uint64_t handler, unsigned frames, uint64_t *pc, uint64_t *sp);
void log_registers(struct qemu_plugin_insn *insn, bool suspect);

/* expression.c */
bool expression_holds(const struct expression *expression);

/* execution.c, memory.c, delivery.c */
void take_over_breakpoints(void);
bool may_break(uint64_t pc);
void log_execution(struct qemu_plugin_insn *insn, bool suspect);
void take_over_watches(void);
void log_accesses(struct qemu_plugin_insn *insn, bool suspect);
void record_delivered(uint64_t position, uint64_t pc, uint64_t vaddr, unsigned size);
void record_present(uint64_t position, uint64_t pc, uint64_t vaddr, unsigned size);
void take_over_deliveries(void);
extern uint64_t next_delivery;                  /* position of the first not seen yet */
extern uint64_t interrupted_pc, interrupted_sp; /* by the last delivery */
bool deliver(uint64_t position, uint64_t pc, bool unbegun);
void log_deliveries(struct qemu_plugin_tb *tb, uint64_t pc, bool suspect);

#endif
