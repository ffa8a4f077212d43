/*
 * The schedule: from which byte of QEMU's log on which vCPU runs.
 *
 * When recording it is written as it is kept (docs/reference/recording.md), a switch at a
 * time, so that a QEMU that is killed leaves what there is. In a replay it comes checked and
 * unpacked by retrograde, as an array.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "scheduler.h"

#define MOST_BYTES 10 /* of a 64-bit number in groups of seven bits */

struct change {
    uint64_t offset, vcpu;
};

static int schedule_fd = -1;
static unsigned vcpu_count;
static uint64_t last_offset;

static const struct change *changes;
static size_t change_count, hint;

static void write_all(const void *bytes, size_t count)
{
    const char *from = bytes;

    while (count) {
        ssize_t written = write(schedule_fd, from, count);

        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written <= 0) {
            /* Without it the log is of no use, and QEMU does not end over a full disk. */
            refuse("the schedule cannot be written");
            exit(1);
        }
        from += written;
        count -= written;
    }
}

bool begin_schedule(int fd, unsigned vcpus)
{
    const uint8_t head[] = {'r', 't', 'r', 'o', 's', 'c', 'h', 'd', 1, (uint8_t)vcpus};

    schedule_fd = fd;
    vcpu_count = vcpus;
    write_all(head, sizeof(head));
    return true;
}

/* From `offset` on, `vcpu` runs. */
void note_switch(uint64_t offset, unsigned vcpu)
{
    uint64_t number = (offset - last_offset) * vcpu_count + vcpu;
    uint8_t bytes[MOST_BYTES];
    size_t count = 0;

    last_offset = offset;
    do {
        bytes[count] = number & 0x7f;
        number >>= 7;
        bytes[count++] |= number ? 0x80 : 0;
    } while (number);
    write_all(bytes, count);
}

bool take_schedule(int fd, unsigned vcpus)
{
    struct stat status;

    if (fstat(fd, &status) || status.st_size % sizeof(*changes)) {
        refuse("there is no schedule at descriptor %d", fd);
        return false;
    }
    change_count = status.st_size / sizeof(*changes);
    if (change_count) {
        changes = mmap(NULL, status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (changes == MAP_FAILED) {
            refuse("the schedule cannot be read");
            return false;
        }
    }
    for (size_t i = 0; i < change_count; i++) {
        if (changes[i].vcpu >= vcpus || (i && changes[i].offset <= changes[i - 1].offset)) {
            refuse("the schedule is not one of this machine");
            return false;
        }
    }
    return true;
}

/* The vCPU that runs where the next event of the log is the one at `offset`. */
unsigned scheduled_at(uint64_t offset)
{
    /* `hint` changes at or before `offset`; mostly it is the same as the last time. */
    if (hint && changes[hint - 1].offset > offset) {
        size_t low = 0, high = hint - 1;

        while (low < high) {
            size_t middle = low + (high - low) / 2;

            if (changes[middle].offset <= offset) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        hint = low;
    }
    while (hint < change_count && changes[hint].offset <= offset) {
        hint++;
    }
    return hint ? changes[hint - 1].vcpu : 0;
}
