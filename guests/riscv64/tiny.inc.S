# The work of the tiny guests in 32 and 64 bits, the same as in ../aarch64/tiny.S.

    .equ SCRATCH,  0x80400000
    .equ PHASES,   4
    .equ STORES,   250000
    .equ IDLE,     50

    .macro NAME
    .ascii "TINY"
    .endm

    .macro WORK
    li s0, 1                        # x
    li s1, 0                        # sum
    li s2, PHASES
    li s3, 1664525
    li s4, 1013904223
    li s5, SCRATCH
    li s7, 0xffffc
phase:
    li s6, STORES
work:
    mulw s0, s0, s3
    addw s0, s0, s4
    srliw t0, s0, 10
    and t0, t0, s7
    add t0, t0, s5
    sw s0, 0(t0)
    addi s6, s6, -1
    bnez s6, work
    slliw t0, s1, 7
    srliw t1, s1, 25
    or t0, t0, t1
    addw s1, t0, s0
    la a0, phase_text
    call puts
    addi s2, s2, -1
    bnez s2, phase

    la s2, ticks
    ld s3, 0(s2)
    addi s3, s3, IDLE
idle:
    wfi
    ld t0, 0(s2)
    bltu t0, s3, idle
    csrci mstatus, 8
    .pushsection .data
phase_text: .asciz "TINY-PHASE\n"
    .popsection
    .endm
