/*
 * The scheduler: has the vCPUs of a machine under record/replay run one at a time, in turns
 * that are recorded, and replays the turns (docs/scheduler.md).
 *
 * QEMU goes round its vCPUs and lets each run a slice. The scheduler sits where a slice
 * begins and ends: all but one are turned away, and the one gets its budget of instructions
 * from here. Translated code is left alone.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "scheduler.h"

PROBE_EXPORT int qemu_plugin_version = PROBE_API_VERSION;

/* Of QEMU: the exception that only makes a vCPU leave its slice (exec/cpu-common.h), the
 * interrupt that x86 calls INIT (exec/cpu-all.h), the log's kind of event for instructions
 * (replay/replay-internal.h), all timers (qemu/timer.h). */
#define LEAVE 0x10000
#define INTERRUPT_INIT 0x400
#define EVENT_INSTRUCTION 0
#define ALL_TIMERS (~0)

enum clock { CLOCK_REALTIME = 0, CLOCK_VIRTUAL = 1 };
enum mode { MODE_NONE, MODE_RECORD, MODE_PLAY };

OF_QEMU extern __thread cpu_state *current_cpu;
OF_QEMU extern cpu_state *qemu_get_cpu(int);
OF_QEMU extern bool cpu_has_work(cpu_state *);
OF_QEMU extern int replay_mode;
OF_QEMU extern FILE *replay_file;
OF_QEMU extern bool replay_mutex_locked(void);
OF_QEMU extern bool replay_next_event_is(int);
OF_QEMU extern int replay_get_instructions(void);
OF_QEMU extern void replay_save_instructions(void);
OF_QEMU extern int64_t qemu_clock_deadline_ns_all(int type, int attributes);
OF_QEMU extern int64_t icount_round(int64_t);

static cpu_state *vcpus[MAX_VCPUS];
static unsigned vcpu_count, known;
static struct hooks theirs;
static bool ready;

static bool turned_away; /* the slice that has begun is to end at once */
static int32_t kept_exception;

static unsigned current;

/* When recording. */
static unsigned next; /* the same, unless a change is about to be made */
static int64_t turn_ends;      /* when so many instructions were executed */
static uint64_t slice_end = 1; /* of the log, when the last slice ended; no switch lies there */

#define FIELD(cpu, type, offset) (*(type *)((char *)(cpu) + (offset)))

static _Noreturn void give_up(const char *why)
{
    refuse("%s", why);
    exit(1);
}

/* Only while the replay mutex is held, as in a slice. */
static uint64_t log_offset(void)
{
    uint64_t offset = (uint64_t)ftell(replay_file);

    if (replay_mode == MODE_RECORD) {
        return offset;
    }
    /* The kind of the next event has been read, and how many instructions it has. */
    return offset - (replay_next_event_is(EVENT_INSTRUCTION) ? 5 : 1);
}

static bool can_run(unsigned vcpu)
{
    return !FIELD(vcpus[vcpu], uint32_t, at.halted) || cpu_has_work(vcpus[vcpu]);
}

static void begin_turn(unsigned vcpu)
{
    current = next = vcpu;
    turn_ends = *executed + (int64_t)next_quantum();
}

/*
 * Which vCPU is to run. When recording, that changes once this one's turn is over or it has
 * nothing to do; `current` is the one that ran last.
 */
static unsigned whose_turn(void)
{
    if (replay_mode == MODE_PLAY) {
        return current = scheduled_at(log_offset());
    }
    if (next == current) {
        if (*executed < turn_ends && can_run(current)) {
            return current;
        }
        next = choose(current, vcpu_count, can_run);
    } else if (!can_run(next)) {
        next = choose(current, vcpu_count, can_run);
    }
    if (next == current) {
        begin_turn(current);
    }
    return next;
}

/*
 * A change needs an event of the log that belongs to no slice since the last one ended:
 * there every slice of a replay ends, too, and no interrupt of one vCPU can be taken by
 * another.
 */
static bool changes_to(unsigned vcpu)
{
    if (log_offset() == slice_end) {
        return false;
    }
    replay_save_instructions();
    note_switch(log_offset(), vcpu);
    begin_turn(vcpu);
    return true;
}

/*
 * QEMU kicks all vCPUs where it means one, and goes a round of its own for each that was
 * (rr_kick_vcpu_thread). Those that are not to run need none: the round ends behind them.
 */
static void forget_kicks(unsigned running)
{
    for (unsigned i = 0; at.request && i < vcpu_count; i++) {
        if (i != running) {
            __atomic_store_n(&FIELD(vcpus[i], uint8_t, at.request), 0, __ATOMIC_RELAXED);
        }
    }
}

/* Whether this vCPU, whose slice begins, may run. */
static bool may_run(cpu_state *cpu)
{
    unsigned running = whose_turn();

    forget_kicks(running);
    return vcpus[running] == cpu && (running == current || changes_to(running));
}

/* As QEMU has it for a machine of one vCPU (icount_get_limit in tcg-accel-ops-icount.c). */
static int64_t until_next_timer(void)
{
    int64_t virtual = qemu_clock_deadline_ns_all(CLOCK_VIRTUAL, ALL_TIMERS);
    int64_t real = qemu_clock_deadline_ns_all(CLOCK_REALTIME, ALL_TIMERS);
    int64_t deadline = virtual < 0 || (real >= 0 && real < virtual) ? real : virtual;

    return icount_round(deadline < 0 || deadline > INT32_MAX ? INT32_MAX : deadline);
}

/*
 * QEMU shares what there is to run among all vCPUs. The only one gets all of it. One that is
 * about to handle INIT gets none: its counters are reset with it, and all that was left
 * would count as executed (cpu_common_reset_hold in hw/core/cpu-common.c).
 */
static void set_budget(cpu_state *cpu)
{
    int64_t budget = 0;

    if (!(FIELD(cpu, uint32_t, at.interrupts) & INTERRUPT_INIT)) {
        if (replay_mode == MODE_PLAY) {
            budget = replay_get_instructions();
        } else {
            int64_t limit = until_next_timer(), left = turn_ends - *executed;

            budget = left < limit ? left : limit;
        }
    }
    FIELD(cpu, uint16_t, at.low) = budget < UINT16_MAX ? budget : UINT16_MAX;
    FIELD(cpu, int64_t, at.extra) = budget - FIELD(cpu, uint16_t, at.low);
    FIELD(cpu, int64_t, at.budget) = budget;
}

static int64_t left_of_budget(cpu_state *cpu)
{
    return FIELD(cpu, uint16_t, at.low) + FIELD(cpu, int64_t, at.extra);
}

/* The first slice of all shows whether we are called where we think we are. */
static void check_once(cpu_state *cpu)
{
    if (ready) {
        return;
    }
    if (!replay_mutex_locked() || current_cpu != cpu ||
        FIELD(cpu, int64_t, at.budget) != left_of_budget(cpu) ||
        FIELD(cpu, int32_t, at.exception) != -1) {
        give_up("a vCPU's slice does not begin as this QEMU should begin it");
    }
    if (!silence_kick_timer()) {
        exit(1);
    }
    if (replay_mode == MODE_RECORD) {
        begin_turn(0);
    }
    ready = true;
}

/*
 * In a replay, whether the one whose turn it is has been here before with nothing to do. The
 * main loop has had its chance then, and the slice is over, because the turn may be another's.
 */
static bool has_waited(void)
{
    static uint64_t waits_at;
    uint64_t here = log_offset();

    if (replay_mode != MODE_PLAY) {
        return false;
    }
    if (here != waits_at) {
        waits_at = here;
        return false;
    }
    waits_at = 0;
    wait_for_main_loop();
    return true;
}

static bool leaves_halt(cpu_state *cpu)
{
    check_once(cpu);
    if (!may_run(cpu)) {
        return false;
    }
    if (theirs.halt(cpu)) {
        return true;
    }
    has_waited();
    return false;
}

static void slice_begins(cpu_state *cpu)
{
    check_once(cpu);
    turned_away = !may_run(cpu);
    if (!turned_away) {
        set_budget(cpu);
        turned_away = !FIELD(cpu, int64_t, at.budget) && has_waited();
    }
    if (turned_away) {
        kept_exception = FIELD(cpu, int32_t, at.exception);
        FIELD(cpu, int32_t, at.exception) = LEAVE;
        return;
    }
    theirs.enter(cpu);
}

static void slice_ends(cpu_state *cpu)
{
    if (turned_away) {
        FIELD(cpu, int32_t, at.exception) = kept_exception;
        return;
    }
    theirs.leave(cpu);
    forget_kicks(current);
    if (replay_mode == MODE_RECORD) {
        slice_end = log_offset();
        if (left_of_budget(cpu)) {
            turn_ends = *executed; /* it waits: `pause`, or `hlt` */
        }
    }
}

static void vcpu_ready(CALLBACK_WITH(unsigned vcpu))
{
    const struct hooks ours = {leaves_halt, slice_begins, slice_ends};
    cpu_state *cpu = qemu_get_cpu((int)vcpu);

    (void)unused;
    if (vcpu >= vcpu_count || !cpu || vcpus[vcpu]) {
        give_up("QEMU's vCPUs are not those that were asked for");
    }
    vcpus[vcpu] = cpu;
    if (!known) {
        begin_waiting();
    }
    if (!known++ && !exchange_hooks(cpu, &ours, &theirs)) {
        give_up("the functions that run a vCPU are not where this QEMU should have them");
    }
}

static bool exports_enough(void)
{
    return &current_cpu && qemu_get_cpu && cpu_has_work && &replay_mode && &replay_file &&
           replay_mutex_locked && replay_next_event_is && replay_get_instructions &&
           replay_save_instructions && qemu_clock_deadline_ns_all && icount_round && can_wait();
}

PROBE_EXPORT int qemu_plugin_install(plugin_id id, const plugin_info *info, int argc, char **argv)
{
    struct policy policy = {0, 0};
    int record = -1, replay = -1;

    for (int i = 0; i < argc; i++) {
        char *end = strchr(argv[i], '=');
        uint64_t value = end ? strtoull(end + 1, NULL, 0) : 0;

        if (!strncmp(argv[i], "record=", 7)) {
            record = (int)value;
        } else if (!strncmp(argv[i], "replay=", 7)) {
            replay = (int)value;
        } else if (!strncmp(argv[i], "vcpus=", 6)) {
            vcpu_count = (unsigned)value;
        } else if (!strncmp(argv[i], "quantum=", 8)) {
            policy.quantum = value;
        } else if (!strncmp(argv[i], "seed=", 5)) {
            policy.seed = value;
        }
    }
    if (!info->system_emulation || vcpu_count < 2 || vcpu_count > MAX_VCPUS ||
        (record < 0) == (replay < 0) || (record >= 0 && !policy.quantum)) {
        refuse("needs vcpus=N and either record=FD and quantum=N or replay=FD");
        return -1;
    }
    if (!exports_enough()) {
        refuse("this QEMU does not export what it needs");
        return -1;
    }
    if (!find_layout()) {
        return -1;
    }
    begin_policy(&policy);
    if (record >= 0 ? !begin_schedule(record, vcpu_count) : !take_schedule(replay, vcpu_count)) {
        return -1;
    }
    qemu_plugin_register_vcpu_init_cb(id, vcpu_ready NO_DATA);
    return 0;
}
