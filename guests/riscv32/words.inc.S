# What ../riscv64/common.inc.S asks for, in 32 bits: a register is a word, and the guest's time
# stays below 2^32.
    .macro SLOT operation, register, number
    \operation \register, 4*\number(sp)
    .endm

    .macro PUT_DEADLINE
    li t2, -1
    sw t2, 4(t0)                    # no interrupt in between
    sw t1, 0(t0)
    sw zero, 4(t0)
    .endm

    .macro addw to, left, right
    add \to, \left, \right
    .endm

    .macro mulw to, left, right
    mul \to, \left, \right
    .endm

    .macro slliw to, left, right
    slli \to, \left, \right
    .endm

    .macro srliw to, left, right
    srli \to, \left, \right
    .endm

    .macro ld register, place
    lw \register, \place
    .endm

    .macro sd register, place
    sw \register, \place
    .endm
