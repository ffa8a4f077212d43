@ One page of code mapped at three addresses, called at each in turn, with timer interrupts
@ in between: QEMU translates it once and runs that at all of them. With the MMU on from
@ there on.

    .equ ROUNDS,   3000
    .equ SECTIONS, 0x40500000
    .equ PAGES,    0x40504000
    .equ WINDOW,   0x70000000
    .equ FIRST,    WINDOW + 0x3000
    .equ SECOND,   WINDOW + 0x8000

    .macro NAME
    .ascii "ALIASES"
    .endm

    .macro WORK
    ldr r0, =SECTIONS               @ everything one to one, in sections of 1 MB
    ldr r1, =0xc02                  @ a section, for all to read and write
    mov r2, #4096
1:  str r1, [r0], #4
    add r1, r1, #0x100000
    subs r2, r2, #1
    bne 1b
    ldr r0, =SECTIONS + (WINDOW >> 20) * 4
    ldr r1, =PAGES + 1
    str r1, [r0]
    ldr r0, =PAGES
    ldr r1, =shared + 0x32          @ a page, for all to read and write
    str r1, [r0, #4 * 3]
    str r1, [r0, #4 * 8]
    ldr r0, =SECTIONS
    mcr p15, 0, r0, c2, c0, 0       @ TTBR0
    mov r0, #0
    mcr p15, 0, r0, c2, c0, 2       @ TTBCR
    mcr p15, 0, r0, c8, c7, 0       @ TLBIALL
    mvn r0, #0
    mcr p15, 0, r0, c3, c0, 0       @ DACR: no checks
    mrc p15, 0, r0, c1, c0, 0
    orr r0, r0, #1                  @ SCTLR.M
    mcr p15, 0, r0, c1, c0, 0
    isb
    ldr r4, =0x1234567
    mov r5, #0
    ldr r6, =ROUNDS
    ldr r7, =1664525
    ldr r8, =1013904223
round:
    mla r4, r4, r7, r8
    ldr r9, =shared
    blx r9
    ldr r9, =FIRST
    tst r4, #0x10000                @ at times one of the three is left out
    beq 1f
    blx r9
1:  ldr r9, =SECOND
    blx r9
    subs r6, r6, #1
    bne round
    .endm

    .include "common.inc.S"

@ The sum in r5 becomes itself rotated left by 7, plus \value.
    .macro MIX value
    add r5, \value, r5, ror #25
    .endm

@ Mixes r4 and the address it runs at into r5, in a few blocks.
    .text
    .ltorg
    .balign 4096
    .globl shared, shared_loop
shared:
    sub r0, pc, #8
    MIX r0
    mov r1, #4
shared_loop:
    MIX r4
    subs r1, r1, #1
    bne shared_loop
    tst r4, #0x20000
    addeq r5, r5, #1
    bx lr

    .bss
    .balign 4096                    @ nothing that is written lies in its page
