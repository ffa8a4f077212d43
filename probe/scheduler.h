/*
 * What the parts of the scheduler share: which vCPU runs when, recorded and replayed
 * (docs/scheduler.md).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef RETROGRADE_SCHEDULER_H
#define RETROGRADE_SCHEDULER_H

#include <stdio.h>

#include "qemu_plugin_abi.h"

#define MAX_VCPUS 64

#define refuse(...)                                                                      \
    (fprintf(stderr, "retrograde scheduler: "), fprintf(stderr, __VA_ARGS__),            \
     fputc('\n', stderr))

/* Exported by builds with loadable modules, and part of no plugin API. Weak, so that where
 * one is missing the scheduler can say so. */
#define OF_QEMU __attribute__((weak))

/* QEMU's structures are opaque here. */
typedef struct cpu_state cpu_state;

/* scheduler_layout.c */

/* Where the fields are, in bytes from the beginning of QEMU's CPUState. */
struct cpu_layout {
    size_t halted, interrupts, exception; /* uint32_t, uint32_t, int32_t */
    size_t budget, extra, low;            /* int64_t, int64_t, uint16_t */
    size_t request; /* the byte that asks it to leave its slice; 0: none does for all */
};
extern struct cpu_layout at;
extern volatile int64_t *executed; /* instructions that all vCPUs have executed */

bool find_layout(void);

/* What QEMU calls for each slice of a vCPU (TCGCPUOps in include/accel/tcg/cpu-ops.h). */
struct hooks {
    bool (*halt)(cpu_state *);
    void (*enter)(cpu_state *);
    void (*leave)(cpu_state *);
};
bool exchange_hooks(cpu_state *cpu, const struct hooks *ours, struct hooks *theirs);
bool silence_kick_timer(void);

/* schedule.c */
bool begin_schedule(int fd, unsigned vcpus);
void note_switch(uint64_t offset, unsigned vcpu);
bool take_schedule(int fd, unsigned vcpus);
unsigned scheduled_at(uint64_t offset);

/* scheduler_wait.c */
bool can_wait(void);
void begin_waiting(void);
void wait_for_main_loop(void);

/* policy.c */
struct policy {
    uint64_t quantum; /* instructions */
    uint64_t seed;    /* 0: every quantum is the same, and the next in order comes */
};
void begin_policy(const struct policy *chosen);
uint64_t next_quantum(void);
unsigned choose(unsigned current, unsigned vcpus, bool (*may)(unsigned));

#endif
