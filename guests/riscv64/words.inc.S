# What common.inc.S asks for, in 64 bits.
    .macro SLOT operation, register, number
    \operation \register, 8*\number(sp)
    .endm

    .macro PUT_DEADLINE
    sd t1, 0(t0)
    .endm
