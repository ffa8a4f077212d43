/*
 * Which vCPU comes next, and for how long. Decided when recording only.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "scheduler.h"

static struct policy policy;

void begin_policy(const struct policy *chosen)
{
    policy = *chosen;
}

/* xorshift64* (Marsaglia; Vigna): a short generator that is the same everywhere. */
static uint64_t random_number(void)
{
    policy.seed ^= policy.seed >> 12;
    policy.seed ^= policy.seed << 25;
    policy.seed ^= policy.seed >> 27;
    return policy.seed * UINT64_C(0x2545f4914f6cdd1d);
}

/*
 * Instructions until the next change. Random ones are short and long alike, since a race
 * may need a change within a few instructions, or none for long: as likely below 64 as
 * between two other powers of two.
 */
uint64_t next_quantum(void)
{
    uint64_t most;

    if (!policy.seed) {
        return policy.quantum;
    }
    most = policy.quantum >> random_number() % 16;
    return 1 + random_number() % (most > 64 ? most : 64);
}

/* Which of those that `may` run comes after `current`: itself only if there is no other. */
unsigned choose(unsigned current, unsigned vcpus, bool (*may)(unsigned))
{
    unsigned others[MAX_VCPUS], count = 0;

    for (unsigned i = 1; i < vcpus; i++) {
        unsigned other = (current + i) % vcpus;

        if (may(other)) {
            others[count++] = other;
        }
    }
    if (!count) {
        return current;
    }
    return others[policy.seed ? random_number() % count : 0];
}
