/*
 * QEMU's kick timer, which moves on to the next vCPU, put out of action.
 *
 * It is armed whenever vCPUs wake, at other times in a replay that was stopped than in the
 * recording, and its expiry is an event of the log (accel/tcg/tcg-accel-ops-rr.c): such a
 * replay would wait for one that never comes. It goes into a list of timers of ours, which
 * nobody runs. The quantum does its work.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "scheduler.h"

#define LIST_WORDS 24 /* looked through for where a list begins */
#define TIMER_WORDS 16
#define NEAR 4096 /* bytes of code that one file's functions have at most */
#define MOST_TIMERS 100000

enum clock { CLOCK_VIRTUAL = 1, CLOCK_HOST = 2 };

struct timer_list;
typedef void timer_callback(void *);

OF_QEMU extern struct timer_list *main_loop_tlg[];
OF_QEMU extern struct timer_list *timerlist_new(int type, void (*)(void *, int), void *);
OF_QEMU extern void timer_init_full(void *timer, void *lists, int type, int scale,
                                    int attributes, timer_callback *, void *);
OF_QEMU extern void timer_mod_ns(void *timer, int64_t);
OF_QEMU extern void timer_del(void *timer);
OF_QEMU extern void rr_kick_vcpu_thread(void *);
OF_QEMU extern void rr_start_vcpu_thread(void *);

static size_t list_at, callback_at, next_at; /* words in a timer */
static size_t first_at;                      /* word in a list */

static void nothing(void *unused)
{
    (void)unused;
}

static void nothing_new(void *unused, int type)
{
    (void)unused, (void)type;
}

static bool find_once(void *const *words, size_t count, const void *target, size_t *place)
{
    unsigned found = 0;

    for (size_t i = 0; i < count; i++) {
        if (words[i] == target) {
            *place = i;
            found++;
        }
    }
    return found == 1;
}

/* Two timers of ours in a list of ours show where each thing is. */
static struct timer_list *learn(void)
{
    static void *first[TIMER_WORDS], *second[TIMER_WORDS];
    struct timer_list *lists[4], *list = timerlist_new(CLOCK_HOST, nothing_new, NULL);

    for (unsigned i = 0; i < 4; i++) {
        lists[i] = list;
    }
    timer_init_full(first, lists, CLOCK_HOST, 1, 0, nothing, NULL);
    timer_init_full(second, lists, CLOCK_HOST, 1, 0, nothing, NULL);
    timer_mod_ns(second, INT64_MAX);
    timer_mod_ns(first, INT64_MAX - 1);
    if (!find_once(first, TIMER_WORDS, list, &list_at) ||
        !find_once(first, TIMER_WORDS, (void *)nothing, &callback_at) ||
        !find_once(first, TIMER_WORDS, second, &next_at) ||
        !find_once((void **)list, LIST_WORDS, first, &first_at)) {
        return NULL;
    }
    timer_del(first);
    timer_del(second);
    return list;
}

static bool is_near(const void *code, const void *function)
{
    uintptr_t distance = (uintptr_t)code - (uintptr_t)function + NEAR;

    return distance < 2 * NEAR;
}

/* To be called by the thread of the vCPUs before they run. */
bool silence_kick_timer(void)
{
    struct timer_list *ours;
    void **kick = NULL, **timer;
    unsigned found = 0, left = MOST_TIMERS;

    if (!main_loop_tlg || !timerlist_new || !timer_init_full || !timer_mod_ns || !timer_del ||
        !rr_kick_vcpu_thread || !rr_start_vcpu_thread) {
        refuse("this QEMU does not export its timers");
        return false;
    }
    ours = learn();
    if (!ours) {
        refuse("the timers of this QEMU are not made as expected");
        return false;
    }
    timer = ((void ***)main_loop_tlg[CLOCK_VIRTUAL])[first_at];
    for (; timer && left; timer = timer[next_at], left--) {
        if (is_near(timer[callback_at], (void *)rr_kick_vcpu_thread) &&
            is_near(timer[callback_at], (void *)rr_start_vcpu_thread)) {
            kick = timer;
            found++;
        }
    }
    if (found != 1) {
        refuse("QEMU's kick timer is not where it should be");
        return false;
    }
    timer_del(kick);
    kick[list_at] = ours;
    timer_mod_ns(kick, INT64_MAX);
    return true;
}
