# The smallest useful guest: console, pattern, timer, memory traffic, idling.
#
# PHASES times WORK rounds of xorshift64, each round storing into 1 MB at SCRATCH,
# a console line after each phase, then IDLE timer interrupts awaited in hlt.

    .ifndef PHASES
    .equ PHASES, 8
    .endif
    .ifndef WORK
    .equ WORK, 250000
    .endif
    .ifndef IDLE
    .equ IDLE, 50
    .endif

    .macro NAME
    .ascii "TINY"
    .endm
    .include "common.inc.S"

main:
    GATE 0x20, tick
    START_TIMER 1193            # 1 kHz
    mov $1, %r12d
    xor %ebx, %ebx
    xor %r14d, %r14d
phase:
    STORE_ROUNDS WORK
    MIX %r12
    lea phase_text(%rip), %rsi
    call puts
    mov %r14, %rax
    call puthex
    mov $'\n', %al
    call putc
    inc %r14d
    cmp $PHASES, %r14d
    jne phase

    mov ticks(%rip), %r13
    add $IDLE, %r13
idle:
    hlt
    cmp %r13, ticks(%rip)
    jb idle
    STOP_TIMER
    mov %rbx, %rax
    ret

    .data
phase_text:
    .asciz "TINY-PHASE "
