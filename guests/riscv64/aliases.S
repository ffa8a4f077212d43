# One page of code mapped at three addresses, called at each in turn, with timer interrupts
# in between: QEMU translates it once and runs that at all of them. In S mode from there on.

    .equ ROUNDS, 3000
    .equ TABLES, 0x80500000
    .equ LEVEL1, TABLES + 0x1000
    .equ LEVEL0, TABLES + 0x2000
    .equ WINDOW, 0x40000000
    .equ FIRST,  WINDOW + 0x3000
    .equ SECOND, WINDOW + 0x8000
    .equ LEAF,   0xcf               # valid, readable, writable, executable, accessed, dirty

    .macro NAME
    .ascii "ALIASES"
    .endm

    .macro WORK
    li t0, TABLES                   # the first gigabyte and that of RAM one to one
    li t1, LEAF
    sd t1, 0(t0)
    li t1, (LEVEL1 >> 12 << 10) + 1
    sd t1, 8(t0)
    li t1, (0x80000000 >> 12 << 10) + LEAF
    sd t1, 16(t0)
    li t0, LEVEL1
    li t1, (LEVEL0 >> 12 << 10) + 1
    sd t1, 0(t0)
    la t1, shared
    srli t1, t1, 2
    addi t1, t1, LEAF
    li t0, LEVEL0
    sd t1, 8 * 3(t0)
    sd t1, 8 * 8(t0)
    li t0, -1                       # all memory for S mode
    csrw pmpaddr0, t0
    li t0, 0x1f
    csrw pmpcfg0, t0
    li t0, (8 << 60) + (TABLES >> 12)
    csrw satp, t0
    sfence.vma
    li t0, 0x1000
    csrc mstatus, t0
    li t0, 0x800                    # mstatus.MPP = S
    csrs mstatus, t0
    la t0, supervisor
    csrw mepc, t0
    mret
supervisor:
    li s0, 0x1234567
    li s1, 0
    li s2, ROUNDS
    li s3, 1664525
    li s4, 1013904223
    la s5, shared
    li s6, FIRST
    li s7, SECOND
round:
    mulw s0, s0, s3
    addw s0, s0, s4
    jalr s5
    srliw t0, s0, 16                # at times one of the three is left out
    andi t0, t0, 1
    beqz t0, 1f
    jalr s6
1:  jalr s7
    addi s2, s2, -1
    bnez s2, round
    .endm

    .include "words.inc.S"
    .include "common.inc.S"

# The sum in s1 becomes itself rotated left by 7, plus \value.
    .macro MIX value
    slliw t1, s1, 7
    srliw t2, s1, 25
    or t1, t1, t2
    addw s1, t1, \value
    .endm

# Mixes s0 and the address it runs at into s1, in a few blocks.
    .text
    .balign 4096
    .globl shared, shared_loop
shared:
    auipc t0, 0
    MIX t0
    li t3, 4
shared_loop:
    MIX s0
    addi t3, t3, -1
    bnez t3, shared_loop
    srliw t1, s0, 17
    andi t1, t1, 1
    bnez t1, 1f
    addiw s1, s1, 1
1:  ret

    .bss
    .balign 4096                    # nothing that is written lies in its page
