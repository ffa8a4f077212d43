# Exceptions of every kind that needs no paging, from M and U mode, with timer ticks.

    .equ ROUNDS, 200
    .equ STEPS_OVER, 1
    .equ ABSENT, 0x0b000000         # nothing is there

    .macro NAME
    .ascii "FAULTS"
    .endm

    # Steps over what faulted: each of these is 4 bytes long, but a fetch, which is a call.
    .macro FAULT
    addw s1, s1, t0
    slliw t1, s1, 7
    srliw t2, s1, 25
    or s1, t1, t2
    li t2, 1                        # fetch access fault
    csrr t1, mepc
    bne t0, t2, 1f
    SLOT ld, t1, 3                  # ra
    j 2f
1:  addi t1, t1, 4
2:  csrw mepc, t1
    li t2, 8                        # ecall from U: stay in M mode
    bne t0, t2, 3f
    li t2, 0x1800
    csrs mstatus, t2
3:  j leave
    .endm

    .macro WORK
    .option norvc
    li t0, -1
    csrw pmpaddr0, t0               # U mode may go anywhere
    li t0, 0x1f
    csrw pmpcfg0, t0
    li s1, 0
    li s2, ROUNDS
    li s3, ABSENT
round:
    ecall
    ebreak
    csrr t3, 0x7ff                  # no such register
    lw t3, 8(s3)
    sw t3, 12(s3)
    jalr s3
    li t0, 0x1800
    csrc mstatus, t0                # MPP = U
    la t0, user
    csrw mepc, t0
    mret
user:
    csrr t3, mhartid                # not for U mode; and its handler returns there
    ecall
    addi s2, s2, -1
    bnez s2, round
    csrci mstatus, 8
    .option rvc
    .endm
