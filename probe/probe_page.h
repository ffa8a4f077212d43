/*
 * The page the probe and retrograde.machine.probe.probe share, and the records in it.
 *
 * Python owns every field above "Written by the probe" and changes them only while the
 * machine is stopped. All numbers are host-endian. Change a layout, change PAGE_VERSION
 * here and in src/retrograde/machine/probe/page.py.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef RETROGRADE_PROBE_PAGE_H
#define RETROGRADE_PROBE_PAGE_H

#include <stdint.h>

#define PAGE_MAGIC UINT64_C(0x65626f72706f7472) /* "rtoprobe" */
#define PAGE_VERSION 6
#define LINE_BYTES 64
#define NOWHERE (~UINT64_C(0)) /* no physical address, or none that is known */
#define PAGE_BYTES 4096 /* the smallest page of any target; others lie on its borders too */

enum feature {
    FEATURE_COUNT = 1,        /* positions, nothing recorded */
    FEATURE_BREAK = 2,        /* hits of `breakpoints` */
    FEATURE_WATCH = 4,        /* hits of `watches` */
    FEATURE_WRITES = 8,       /* every store */
    FEATURE_STEPS = 16,       /* every instruction */
    FEATURE_REGISTERS = 32,   /* every change of `registers` */
    FEATURE_AUDIT = 64,       /* compare each block's position with QEMU's own count */
    FEATURE_BLOCKS = 128,     /* which blocks ran; the next three need it */
    FEATURE_WRITTEN = 256,    /* which lines of physical memory were stored to */
    FEATURE_CALLS = 512,      /* calls and the returns from them */
    FEATURE_CONTEXT = 1024,   /* changes of address space and privilege */
    FEATURE_MOMENTS = 2048,   /* what the machine is like at hits of `breakpoints` */
    FEATURE_MEMORY = 4096,    /* with FEATURE_WRITES: what deliveries may have pushed; with
                               * FEATURE_REGISTERS: where the pages in `seen` lie */
    FEATURE_TRAPS = 8192,     /* with what sees deliveries: why they were made */
};

/* A table Python fills, or a ring the probe fills: `total` records were written since it
 * was cleared, the newest `capacity` of them are there, number i in slot i % capacity. */
struct area {
    uint64_t offset, capacity, total;
};

struct breakpoint {
    uint64_t pc;
    uint32_t first_condition, conditions;   /* all must hold */
    uint32_t first_expression, expressions; /* any must, if there are any */
};

struct watch {
    uint64_t first, last; /* inclusive */
    uint32_t access;      /* enum plugin_access */
    uint32_t physical;
};

enum comparison { EQUAL, NOT_EQUAL, BELOW, BELOW_OR_EQUAL, ABOVE, ABOVE_OR_EQUAL };

struct condition {
    uint64_t mask, value; /* (operand & mask) against value, unsigned */
    uint64_t address;     /* virtual, when the operand is memory */
    uint32_t reg;         /* index into `registers`, when it is a register */
    uint16_t comparison;
    uint8_t in_memory;
    uint8_t size; /* bytes of memory: 1 to 8 */
};

/* One of gdb's conditions: where its bytes are in `code`. */
struct expression {
    uint32_t offset, size;
};

enum record_flag {
    RECORD_STORE = 1,
    RECORD_IO = 2,        /* a device answered some of it, there paddr is its bus address */
    RECORD_ATTEMPT = 4,   /* the instruction faulted and did not retire */
    RECORD_NO_PADDR = 8,  /* QEMU could not tell the physical address of some of it */
    RECORD_ACCESS = 16,   /* a memory access; clear: the instruction itself */
    RECORD_DELIVERY = 32, /* pushed by an interrupt or exception; pc is its handler's */
    RECORD_BIG_ENDIAN = 64, /* the first byte of the number that was moved is its highest */
};

/* An instruction, or an access as QEMU makes it: one record each, whatever its size and
 * whether it crosses a page or not. What several accesses move is several records. */
struct record {
    uint64_t position, pc, vaddr, paddr;
    uint64_t beyond;  /* physical address of the bytes in the next page; NOWHERE: none */
    uint8_t data[16]; /* the bytes moved, in the order of memory; `size` of them */
    uint16_t size, flags;
    uint32_t which; /* index of the breakpoint or watch */
};

struct step {
    uint64_t position, pc;
};

/* A 16-byte slice of a register that changed; `position` is where it has this value. Behind
 * the registers come the pages in `seen`: their value is where they lie, NOWHERE if nowhere. */
struct change {
    uint64_t position;
    uint16_t reg, slice, size, unused;
    uint8_t bytes[16];
};

/* A stretch of instructions that ran from its first to its last, `count` times since the
 * epoch began, first and last from these positions. */
struct block {
    uint64_t pc, first, last, count;
    uint32_t size, instructions; /* bytes, and how many */
};

/* A call. `sp` is the stack pointer before it, `depth` how many calls seen in the epoch it
 * is inside of; `returned` is where the return arrived, or 0. */
struct call {
    uint64_t position, pc, target, returned, sp, space;
    uint64_t arguments[6];
    uint32_t depth, unused;
};

#define MOMENT_PAGES 40

/* What the machine is like where a breakpoint was hit. `pc` is gdb's; `after` is that of the
 * next position, NOWHERE if it was not seen, and `before` where the instruction before was
 * translated. The registers are at its place in `moment_registers`. */
struct moment {
    uint64_t position, pc, before, after;
    uint64_t pages;
    struct {
        uint64_t vaddr, number; /* of a page, and its place in `moment_pages` */
    } page[MOMENT_PAGES];
};

struct range {
    uint64_t first, last; /* inclusive */
};

enum context_kind { CONTEXT_SPACE, CONTEXT_PRIVILEGE };

/* From `position` on `kind` has this value; `initial` when it had it before, too. */
struct context {
    uint64_t position, value;
    uint32_t kind, initial;
};

enum trap_flag {
    TRAP_VECTOR = 1,
    TRAP_CODE = 2,
    TRAP_ADDRESS = 4,
    TRAP_PC = 8,
    TRAP_PRIVILEGE = 16,
    TRAP_CALLED = 32, /* x86: an `int` with this vector stands before where it came */
};

/* Why an interrupt or exception was taken: `number` is its place in `deliveries`, `pc` where it
 * came, `privilege` the level there. Of the others than `known` says nothing is known. */
struct trap {
    uint64_t position, number;
    uint64_t vector, code, address, pc, privilege;
    uint64_t known; /* enum trap_flag */
};

struct page {
    uint64_t magic, version, bytes;
    uint64_t generation; /* +1 for every change of what follows */
    uint64_t features;
    uint64_t from, until; /* record at positions in [from, until) */
    uint64_t big_endian;
    struct area exceptions, deliveries, breakpoints, watches, conditions, registers;
    struct area expressions, code;
    struct area hits, writes, steps, changes;
    /* Written lines: bit i of word p is line i, of LINE_BYTES, of physical page p. The
     * numbers of the words that are not zero are in `touched`. Python clears both, and the
     * counts of `blocks`, when it begins an epoch. */
    struct area blocks, written, touched, calls, contexts, traps;
    /* Python fills `chosen`, the only positions of which moments are kept if there are any,
     * `ram`, physical addresses, and `seen`, virtual pages looked at beside those registers
     * point to. Of what the probe fills the first stay. */
    struct area chosen, ram, seen, moments, moment_registers, moment_pages;
    uint64_t kept_registers; /* the first of `registers` that a moment has */
    uint64_t kept_bytes;     /* of those */
    uint64_t pointers;       /* the first of them that may point to memory */
    uint64_t epoch; /* +1 for everything to begin anew */
    uint64_t kept_loads; /* +1 for all translated code to be dropped before the guest runs */

    /* Written by the probe. */
    uint64_t loaded;     /* PAGE_VERSION once the probe runs */
    uint64_t api;        /* QEMU's plugin API version */
    uint64_t drops_code; /* whether `kept_loads` is heeded */
    uint64_t active_generation, active_from;
    uint64_t unknown_register;   /* 1 + index of a register QEMU does not know, or 0 */
    uint64_t registers_doubtful; /* pc or flags in `changes` may be stale */
    uint64_t translated;       /* blocks */
    uint64_t deliveries_missed; /* that may have pushed what the probe cannot tell */
    uint64_t faults, reruns;   /* instructions begun twice, and counted once */
    uint64_t surprises, surprise_position, surprise_drift;
    uint64_t audited, audit_errors, audit_position;
    uint64_t unplaced; /* stores whose physical address is not known, or beyond `written` */
    uint64_t overflows; /* blocks, calls and contexts for which there was no room */
};

#endif
