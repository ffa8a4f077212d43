/*
 * Where the frame is that an interrupt or exception just pushed, on x86 in protected mode and
 * on m68k, where it cannot be told how long it is.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <malloc.h>

#include "probe.h"

#define NESTED (1u << 14)      /* eflags.NT */
#define LARGE_STACK (1u << 22) /* the B flag of a stack segment: 32-bit offsets */
#define FORMAT 6               /* where in m68k's frames their format is */
#define THROWAWAY 1            /* that of the second frame of one interrupt */

/* One after the other in QEMU's state (CPUX86State): es to gs, LDT, TR, GDT, IDT, cr0 to cr4. */
#define SEGMENTS 10

static struct qemu_plugin_register *stack, *flags, *selector[6], *base[2], *control[4];

static uint64_t held(struct qemu_plugin_register *handle)
{
    bool readable;

    return value_of(handle, &readable);
}

/* What gdb sees of the registers that tell where the segments are. */
struct seen {
    uint64_t selectors[6], bases[2], controls[4];
};

static struct seen look(void)
{
    struct seen seen;

    for (unsigned i = 0; i < 6; i++) {
        seen.selectors[i] = held(selector[i]);
    }
    for (unsigned i = 0; i < 2; i++) {
        seen.bases[i] = held(base[i]);
    }
    for (unsigned i = 0; i < 4; i++) {
        seen.controls[i] = held(control[i]);
    }
    return seen;
}

/* Whether the segment registers, each of `size` bytes as selector, base, limit and flags, may
 * be at `at`: all selectors, two bases, and the control registers behind them are. */
static bool are_segments(const uint8_t *at, size_t size, const struct seen *seen)
{
    const uint8_t *controls = at + SEGMENTS * size;
    bool fit = true;

    for (unsigned i = 0; i < 6 && fit; i++) {
        fit = number_at(at + i * size, 4, false) == seen->selectors[i];
    }
    for (unsigned i = 0; i < 2 && fit; i++) {
        fit = number_at(at + (4 + i) * size + isa->word, isa->word, false) == seen->bases[i];
    }
    for (unsigned i = 0; i < 4 && fit; i++) { /* there is a place for cr1 */
        fit = number_at(controls + (i ? i + 1 : 0) * isa->word, isa->word, false) ==
              seen->controls[i];
    }
    return fit;
}

/* Where QEMU has the segment registers, NULL while that is not known: the only place that fits. */
static const uint8_t *find_segments(size_t size)
{
    static const uint8_t *found;
    const uint8_t *vcpu = this_vcpu(), *fitting = NULL;
    const uint8_t *end = vcpu ? vcpu + malloc_usable_size((void *)vcpu) : NULL;
    struct seen seen;
    unsigned matches = 0;

    if (found || !vcpu) {
        return found;
    }
    seen = look();
    for (const uint8_t *at = vcpu; at + SEGMENTS * size + 5 * isa->word <= end; at += isa->word) {
        if (are_segments(at, size, &seen)) {
            fitting = at;
            matches++;
        }
    }
    return found = matches == 1 ? fitting : NULL;
}

static bool find_x86(uint64_t *top)
{
    size_t word = isa->word, size = word == 8 ? 24 : 16;
    const uint8_t *segments = find_segments(size), *ss;
    uint64_t offset = held(stack);
    bool is_large;

    /* What goes through a task gate sets NT, and saves a task elsewhere. */
    if (!segments || held(flags) & NESTED) {
        return false;
    }
    ss = segments + 2 * size;
    is_large = number_at(ss + 2 * word + 4, 4, false) & LARGE_STACK;
    offset &= is_large ? 0xffffffff : 0xffff;
    *top = (uint32_t)(number_at(ss + word, word, false) + offset);
    return is_large || offset + isa->frame <= 0x10000;
}

/* Find the table of gates of x86; false while it is not known. */
bool find_gates(uint64_t *base, uint64_t *limit)
{
    size_t word = isa->word, size = word == 8 ? 24 : 16;
    const uint8_t *segments = find_segments(size), *idt;

    if (!segments) {
        return false;
    }
    idt = segments + (SEGMENTS - 1) * size;
    *base = number_at(idt + word, word, false);
    *limit = number_at(idt + 2 * word, 4, false);
    return true;
}

/* Find the lowest address to which the delivery of an interrupt or exception pushed, where
 * its handler begins; false where it cannot be told. */
bool find_frame(uint64_t *top)
{
    uint8_t format;
    bool readable;

    if (flags) {
        return find_x86(top);
    }
    *top = value_of(stack, &readable);
    if (!readable || !is_ram(physical_address(*top + FORMAT) & -(uint64_t)PAGE_BYTES)) {
        return false;
    }
    format = memory_value(*top + FORMAT, 1, &readable) >> 4;
    return readable && format != THROWAWAY; /* with that one the first is on another stack */
}

void take_over_frames(glib_array *known)
{
    static const char *const selectors[6] = {"es", "cs", "ss", "ds", "fs", "gs"};
    static const char *const bases[2] = {"fs_base", "gs_base"};
    static const char *const controls[4] = {"cr0", "cr2", "cr3", "cr4"};

    stack = find_register(known, isa->stack);
    flags = find_register(known, "eflags");
    for (size_t i = 0; i < 6; i++) {
        selector[i] = find_register(known, selectors[i]);
    }
    for (size_t i = 0; i < 2; i++) {
        base[i] = find_register(known, bases[i]);
    }
    for (size_t i = 0; i < 4; i++) {
        control[i] = find_register(known, controls[i]);
    }
}
