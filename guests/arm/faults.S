@ Exceptions of AArch32 from SVC mode, MMU off, with timer ticks: aborts where nothing is,
@ undefined instructions, calls.

    .equ ROUNDS, 200
    .equ STEPS_OVER, 1
    .equ ABSENT, 0x0b000000         @ nothing is there

    .macro NAME
    .ascii "FAULTS"
    .endm

    .macro WORK
    mov r5, #0                      @ sum
    mov r6, #ROUNDS
    ldr r7, =ABSENT
round:
    svc #0x17
    udf #1
    ldr r8, [r7, #8]
    str r8, [r7, #12]
    blx r7                          @ the handler returns to lr
    subs r6, r6, #1
    bne round
    cpsid i
    .endm

    .include "common.inc.S"
