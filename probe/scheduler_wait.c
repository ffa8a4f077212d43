/*
 * Waiting for QEMU's main loop in a replay, instead of going round all vCPUs meanwhile.
 *
 * Where the next event of the log is one that the main loop has to bring, the vCPUs have
 * nothing to do and, but for one that halts, do not sleep: QEMU goes round them until the
 * main loop, on another thread, has had its turn. That takes a processor's time from it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#define _POSIX_C_SOURCE 200809L
#include <semaphore.h>
#include <time.h>

#include "scheduler.h"

#define BEFORE_WAITING 0 /* MAIN_LOOP_POLL_FILL, when the loop has done all it could */
#define MOST_NANOSECONDS 2000000 /* it may wait for us, too */

/* QEMU's Notifier (include/qemu/notify.h): a function, and links. */
static struct notifier {
    void (*notify)(struct notifier *, const int *state);
    void *links[2];
} notifier;

OF_QEMU extern void main_loop_poll_add_notifier(struct notifier *);
OF_QEMU extern void qemu_notify_event(void);
OF_QEMU extern void replay_mutex_lock(void);
OF_QEMU extern void replay_mutex_unlock(void);

static sem_t turned;
static int waiting;

static void loop_turns(struct notifier *unused, const int *state)
{
    (void)unused;
    if (*state == BEFORE_WAITING && __atomic_exchange_n(&waiting, 0, __ATOMIC_SEQ_CST)) {
        sem_post(&turned);
    }
}

bool can_wait(void)
{
    return main_loop_poll_add_notifier && qemu_notify_event && replay_mutex_lock &&
           replay_mutex_unlock;
}

/* To be called with QEMU's big lock held. */
void begin_waiting(void)
{
    sem_init(&turned, 0, 0);
    notifier.notify = loop_turns;
    main_loop_poll_add_notifier(&notifier);
}

/* Let the main loop go round once. The log may be at another event afterwards. */
void wait_for_main_loop(void)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += MOST_NANOSECONDS;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    __atomic_store_n(&waiting, 1, __ATOMIC_SEQ_CST);
    replay_mutex_unlock();
    qemu_notify_event();
    sem_timedwait(&turned, &until);
    if (!__atomic_exchange_n(&waiting, 0, __ATOMIC_SEQ_CST)) {
        while (!sem_trywait(&turned)) {
        }
    }
    replay_mutex_lock();
}
