# Instructions that access 1 to 16 bytes at once or in parts, at every place around a page
# border, big-endian. What each accesses is in a table (../accesses.inc.S).

    .equ H_PUT_TERM_CHAR, 0x58
    .equ H_RTAS,          0xf000        # as in tiny.S
    .equ RTAS_POWER_OFF,  0x2003
    .equ PATTERN,         0x200000
    .equ BORDER,          0x401000
    .equ FARTHEST,        40            # bytes before the border where the first round is

    .macro NAME
    .ascii "WIDE"
    .endm
    .macro LOAD register, value
    lis \register, (\value)@h
    ori \register, \register, (\value)@l
    .endm
    .include "../accesses.inc.S"

# Other bytes to store in r14 to r17 and r28 to r31, and in vector registers 0 and 1.
    .macro FRESH
    add 14, 14, 18
    rldicl 15, 14, 29, 0
    xor 16, 15, 14
    add 17, 16, 18
    .irp number, 28, 29, 30, 31
    rldicl \number, 17, \number + 5, 0
    .endr
    .endm
    .macro FRESH_VECTOR
    FRESH
    mtvsrd 0, 14
    mtvsrd 1, 15
    xxpermdi 34, 0, 1, 0
    xxpermdi 0, 1, 0, 0
    .endm

    .text
    .org 0x100
    .globl start
start:
    b main
    .set vector, 0x200
    .rept 14
    .org vector
    b unexpected
    .set vector, vector + 0x100
    .endr

    .org 0x1000
main:
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

    mfmsr 5
    oris 5, 5, 0x0280                   # VEC, VSX
    ori 5, 5, 0x2000                    # FP
    mtmsrd 5
    LOAD 18, 0x9e3779b1
    rldimi 18, 18, 32, 0
    mr 14, 18
    li 19, 0                            # sum
    li 20, 4
    li 21, 0
    LOAD 4, BORDER - FARTHEST
    LOAD 22, BORDER + 2
round:
    bl plain
    bl swapped
    bl multiple
    bl vectors
    andi. 5, 4, 15
    bne 1f
    bl aligned
1:  bl fold
    addi 4, 4, 1
    cmpld 4, 22
    bne round

    LOAD 3, sum_text
    bl puts
    mr 3, 19
    bl puthex
    LOAD 3, done_text
    bl puts
power_off:
    li 3, 0
    ori 3, 3, H_RTAS
    LOAD 4, rtas_arguments
    sc 1
    b .

unexpected:
    LOAD 3, unexpected_text
    bl puts
    mfsrr0 3
    bl puthex
    b power_off

plain:
    FRESH
    ACCESS r4, 0, 1, WRITE, 1
    stb 14, 0(4)
    ACCESS r4, 1, 2, WRITE, 2
    sth 15, 1(4)
    ACCESS r4, 3, 4, WRITE, 4
    stw 16, 3(4)
    ACCESS r4, 8, 8, WRITE, 8
    std 17, 8(4)
    ACCESS r4, 0, 8, READ, 8
    ld 5, 0(4)
    ACCESS r4, 5, 2, READ, 2
    lhz 5, 5(4)
    mr 6, 4
    ACCESS r6, 16, 8, WRITE, 8
    stdu 14, 16(6)
    mtvsrd 1, 16
    ACCESS r4, 2, 8, WRITE, 8
    stfd 1, 2(4)
    ACCESS r4, 4, 4, READ, 4
    lfs 1, 4(4)
    blr

# In the other byte order.
swapped:
    FRESH
    ACCESS r4, 0, 8, WRITE, 8
    stdbrx 14, 0, 4
    ACCESS r4, 4, 4, WRITE, 4
    stwbrx 15, 20, 4
    ACCESS r4, 4, 2, WRITE, 2
    sthbrx 16, 20, 4
    ACCESS r4, 0, 8, READ, 8
    ldbrx 5, 0, 4
    blr

multiple:
    FRESH
    ACCESS r4, 0, 16, WRITE, 4
    stmw 28, 0(4)
    ACCESS r4, 8, 16, READ, 4
    lmw 28, 8(4)
    FRESH
    addi 8, 4, 1
    ACCESS r8, 0, 13, WRITE, 0
    stswi 28, 8, 13
    ACCESS r8, 0, 13, READ, 0
    lswi 28, 8, 13
    blr

vectors:
    FRESH_VECTOR
    ACCESS r4, 0, 16, WRITE, 0
    stxvd2x 34, 0, 4
    ACCESS r4, 0, 16, READ, 0
    lxvd2x 35, 0, 4
    FRESH_VECTOR
    ACCESS r4, 4, 16, WRITE, 0
    stxvw4x 34, 20, 4
    ACCESS r4, 4, 16, READ, 0
    lxvw4x 35, 20, 4
    ACCESS r4, 0, 8, WRITE, 8
    stxsdx 0, 0, 4
    blr

aligned:
    FRESH_VECTOR
    ACCESS r4, 0, 16, WRITE, 16
    stvx 2, 0, 4
    ACCESS r4, 0, 16, READ, 16
    lvx 3, 0, 4
    FRESH
    ACCESS r4, 0, 16, WRITE, 16
    stq 14, 0(4)
    ACCESS r4, 0, 16, READ, 16
    lq 16, 0(4)
    ACCESS r4, 0, 8, READ, 8
    ldarx 5, 0, 4
    ACCESS r4, 0, 8, READ|WRITE, 8
    stdcx. 14, 0, 4
    blr

# What was stored, into the sum.
fold:
    ACCESS r4, 0, 4, READ, 4
    lwz 5, 0(4)
    rlwinm 19, 19, 7, 0, 31
    add 19, 19, 5
    blr

    .include "../ppc64/console.inc.S"

    .data
    .balign 8
rtas_arguments:
    .long RTAS_POWER_OFF, 2, 1, 0, 0, 0
    .include "../texts.inc.S"
