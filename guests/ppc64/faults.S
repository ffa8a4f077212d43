# Exceptions of most kinds, from privileged and problem state of a pseries, with ticks of the
# decrementer.

    .equ H_PUT_TERM_CHAR, 0x58
    .equ H_RTAS,          0xf000        # QEMU's own, hw/ppc/spapr_hcall.c
    .equ RTAS_POWER_OFF,  0x2003        # its token there, include/hw/ppc/spapr.h
    .equ PERIOD,          512000        # 1 ms at 512 MHz
    .equ PATTERN,         0x200000
    .equ ROUNDS,          200

    .macro LOAD register, value
    lis \register, (\value)@h
    ori \register, \register, (\value)@l
    .endm

    .macro VECTOR at, to
    .org \at
    mtsprg2 3
    li 3, \at
    b \to
    .endm

    .text
    .org 0x100
    .globl start
start:
    b main
    VECTOR 0x200, fault
    VECTOR 0x300, fault
    VECTOR 0x380, fault
    VECTOR 0x400, unexpected
    VECTOR 0x480, no_segment
    VECTOR 0x500, unexpected
    VECTOR 0x600, fault
    VECTOR 0x700, fault
    VECTOR 0x800, fault
    .org 0x900
    b decrementer
    VECTOR 0xa00, unexpected
    VECTOR 0xc00, call
    VECTOR 0xd00, unexpected
    VECTOR 0xe40, fault
    VECTOR 0xf20, fault
    VECTOR 0xf40, fault

    .org 0x1000
main:
    mfmsr 4
    li 5, 1
    sldi 5, 5, 63                       # 64-bit mode
    or 4, 4, 5
    li 5, 0x2000                        # no floating point
    andc 4, 4, 5
    mtmsrd 4
    LOAD 3, start_text
    bl puts

    LOAD 4, PATTERN - 4
    LOAD 5, 0x9e3779b1
    li 6, 0
    li 7, 1024
    mtctr 7
1:  stwu 6, 4(4)
    add 6, 6, 5
    bdnz 1b

    LOAD 4, PERIOD
    mtdec 4
    mfmsr 4
    ori 4, 4, 0x8000                    # EE
    mtmsrd 4, 1

    li 15, 0                            # sum
    li 16, ROUNDS
    li 19, 1
    sldi 19, 19, 40                     # beyond all RAM
round:
    sc
    trap
    .long 0                             # illegal
    fadd 1, 1, 1                        # floating point is off
    li 4, 2
    lwarx 18, 0, 4                      # not aligned
    ld 18, 0(19)                        # nothing is there
    mfmsr 4
    ori 4, 4, 0x10                      # DR: no segment, then no page
    mtmsrd 4
    ld 18, 8(19)
    oris 5, 19, 0x0800                  # valid
    li 4, 0x1000
    slbmte 4, 5
    ld 18, 24(19)
    std 18, 16(19)
    slbie 19
    mfmsr 4
    xori 4, 4, 0x10
    mtmsrd 4
    mfmsr 4
    ori 4, 4, 0x4000                    # PR
    mtsrr1 4
    LOAD 4, user
    mtsrr0 4
    rfid
user:                                   # address translation is on here, and has no segment
    addic. 16, 16, -1
    bne round
    mfmsr 4
    rldicl 4, 4, 48, 1                  # EE off
    rotldi 4, 4, 16
    mtmsrd 4, 1

    LOAD 3, sum_text
    bl puts
    mr 3, 15
    bl puthex
    LOAD 3, done_text
    bl puts
power_off:
    li 3, 0
    ori 3, 3, H_RTAS
    LOAD 4, rtas_arguments
    sc 1
    b .

    .macro COUNT                        # the vector in r3 to the sum
    rlwinm 15, 15, 7, 0, 31
    add 15, 15, 3
    rlwinm 15, 15, 0, 0, 31
    .endm

# Steps over what faulted.
fault:
    COUNT
    mtsprg3 4
    mfsrr0 4
    addi 4, 4, 4
    mtsrr0 4
    mfsprg3 4
    mfsprg2 3
    rfid

call:                                   # returns to behind itself
    COUNT
    mfsprg2 3
    rfid

# Goes on there in privileged state, which needs none.
no_segment:
    COUNT
    mfmsr 3
    ori 3, 3, 0x8000
    mtsrr1 3
    rfid

decrementer:
    mtsprg0 4
    LOAD 4, PERIOD
    mtdec 4
    mfsprg0 4
    rfid

unexpected:
    LOAD 3, unexpected_text
    bl puts
    mfsrr0 3
    bl puthex
    b power_off

    .include "console.inc.S"

    .data
    .balign 8
rtas_arguments:
    .long RTAS_POWER_OFF, 2, 1, 0, 0, 0
start_text:      .asciz "FAULTS-START\n"
sum_text:        .asciz "FAULTS-SUM "
done_text:       .asciz "\nFAULTS-DONE\n"
unexpected_text: .asciz "\nFAULTS-UNEXPECTED "
