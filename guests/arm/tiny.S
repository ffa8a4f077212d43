@ The tiny guest in 32 bits, MMU off. The work is the same as in ../aarch64/tiny.S.

    .equ SCRATCH, 0x40400000
    .equ PHASES,  4
    .equ STORES,  250000
    .equ IDLE,    50

    .macro NAME
    .ascii "TINY"
    .endm

    .macro WORK
    mov r4, #1                      @ x
    mov r5, #0                      @ sum
    mov r6, #PHASES
    ldr r7, =1664525
    ldr r8, =1013904223
    ldr r9, =SCRATCH
phase:
    ldr r10, =STORES
work:
    mla r4, r4, r7, r8
    ubfx r11, r4, #12, #18
    str r4, [r9, r11, lsl #2]
    subs r10, r10, #1
    bne work
    add r5, r4, r5, ror #25
    ldr r0, =phase_text
    bl puts
    subs r6, r6, #1
    bne phase

    ldr r6, =ticks
    ldr r7, [r6]
    add r7, r7, #IDLE
idle:
    wfi
    ldr r0, [r6]
    cmp r0, r7
    blo idle
    cpsid i
    .endm

    .include "common.inc.S"

    .data
phase_text: .asciz "TINY-PHASE\n"
