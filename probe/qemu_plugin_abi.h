/*
 * The part of QEMU's TCG plugin ABI the probe uses, declared by us.
 *
 * Distributions do not package QEMU's own header, and names, numbers and calling
 * conventions are facts. They are those of API version 4 (QEMU 10.0; version 5, of 10.2,
 * only adds) and of version 7 (11.1), compared with QEMU's qemu-plugin.h and, for 7, with
 * what Debian's binary does. The probe is built for one of them. QEMU refuses a plugin whose
 * version is outside what it supports (plugins/loader.c), so a later ABI that breaks these
 * cannot be entered with them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef RETROGRADE_QEMU_PLUGIN_ABI_H
#define RETROGRADE_QEMU_PLUGIN_ABI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef PROBE_API_VERSION
#define PROBE_API_VERSION 4
#endif
#define PROBE_EXPORT __attribute__((visibility("default")))

typedef uint64_t plugin_id;
typedef uint32_t plugin_mem_info;

struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_plugin_hwaddr;
struct qemu_plugin_register;
struct qemu_plugin_scoreboard;

typedef struct {
    const char *target_name;
    struct {
        int min, cur;
    } version;
    bool system_emulation;
    struct {
        int smp_vcpus, max_vcpus;
    } system;
} plugin_info;

/* One uint64_t member of each vCPU's entry of a scoreboard; passed by value. */
typedef struct {
    struct qemu_plugin_scoreboard *score;
    size_t offset;
} plugin_u64;

enum plugin_callback_flags { CALLBACK_NO_REGS = 0, CALLBACK_READS_REGS = 1 };
enum plugin_access { ACCESS_READ = 1, ACCESS_WRITE = 2, ACCESS_BOTH = 3 };
enum plugin_inline_op { INLINE_ADD_U64 = 0, INLINE_STORE_U64 = 1 };
enum plugin_condition { CONDITION_NE = 3, CONDITION_GE = 7 };

typedef struct {
    int type;
    union {
        uint8_t u8;
        uint16_t u16;
        uint32_t u32;
        uint64_t u64;
        struct {
            uint64_t low, high;
        } u128;
    } data;
} plugin_mem_value;

/* How each begins of what `qemu_plugin_get_registers` lists; later versions add to it. */
typedef struct {
    struct qemu_plugin_register *handle;
    const char *name;
    const char *feature;
} plugin_register_descriptor;

/* glib's arrays; the library itself is in every QEMU process. */
typedef struct {
    char *data;
    unsigned len;
} glib_array;
typedef struct {
    uint8_t *data;
    unsigned len;
} glib_byte_array;

extern unsigned g_array_get_element_size(glib_array *);
extern glib_byte_array *g_byte_array_new(void);
extern glib_byte_array *g_byte_array_set_size(glib_byte_array *, unsigned);

/* The callbacks below get the plugin's id, since version 7 instead, and last, a pointer of
 * the plugin's own. The probe is only one and has no use for either. */
#if PROBE_API_VERSION < 7
#define CALLBACK_ALONE plugin_id unused
#define CALLBACK_WITH(argument) plugin_id unused, argument
#define NO_DATA_PARAMETER
#define NO_DATA
#else
#define CALLBACK_ALONE void *unused
#define CALLBACK_WITH(argument) argument, void *unused
#define NO_DATA_PARAMETER , void *
#define NO_DATA , NULL
#endif

typedef void (*plugin_simple_callback)(CALLBACK_ALONE);
typedef void (*plugin_vcpu_callback)(CALLBACK_WITH(unsigned vcpu));
typedef void (*plugin_translate_callback)(CALLBACK_WITH(struct qemu_plugin_tb *));
typedef void (*plugin_exec_callback)(unsigned vcpu, void *data);
typedef void (*plugin_mem_callback)(unsigned vcpu, plugin_mem_info, uint64_t vaddr, void *data);

extern void qemu_plugin_reset(plugin_id, plugin_simple_callback NO_DATA_PARAMETER);
extern void qemu_plugin_register_flush_cb(plugin_id, plugin_simple_callback NO_DATA_PARAMETER);
extern void qemu_plugin_register_vcpu_init_cb(plugin_id, plugin_vcpu_callback NO_DATA_PARAMETER);
extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id,
                                                  plugin_translate_callback NO_DATA_PARAMETER);

extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
extern size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);
extern size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *, void *, size_t);

extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, plugin_exec_callback,
                                                 enum plugin_callback_flags, void *);
extern void qemu_plugin_register_vcpu_tb_exec_cond_cb(struct qemu_plugin_tb *,
                                                      plugin_exec_callback,
                                                      enum plugin_callback_flags,
                                                      enum plugin_condition, plugin_u64,
                                                      uint64_t, void *);
extern void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *,
                                                   plugin_exec_callback,
                                                   enum plugin_callback_flags, void *);
extern void qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(struct qemu_plugin_insn *,
                                                                enum plugin_inline_op, plugin_u64,
                                                                uint64_t);
extern void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *, plugin_mem_callback,
                                             enum plugin_callback_flags, enum plugin_access,
                                             void *);

extern unsigned qemu_plugin_mem_size_shift(plugin_mem_info);
extern bool qemu_plugin_mem_is_big_endian(plugin_mem_info);
extern bool qemu_plugin_mem_is_store(plugin_mem_info);
extern plugin_mem_value qemu_plugin_mem_get_value(plugin_mem_info);
extern struct qemu_plugin_hwaddr *qemu_plugin_get_hwaddr(plugin_mem_info, uint64_t vaddr);
extern bool qemu_plugin_hwaddr_is_io(const struct qemu_plugin_hwaddr *);
extern uint64_t qemu_plugin_hwaddr_phys_addr(const struct qemu_plugin_hwaddr *);

extern glib_array *qemu_plugin_get_registers(void);
/* Appends to the array. What it returns differs: a size, since version 6 whether it worked. */
extern void qemu_plugin_read_register(struct qemu_plugin_register *, glib_byte_array *);
extern bool qemu_plugin_read_memory_vaddr(uint64_t, glib_byte_array *, size_t);

extern struct qemu_plugin_scoreboard *qemu_plugin_scoreboard_new(size_t);
extern void *qemu_plugin_scoreboard_find(struct qemu_plugin_scoreboard *, unsigned vcpu);

#endif
