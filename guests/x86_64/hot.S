# Breakpoint torture: one address reached a million times, three ways.
#
# `hot` is the entry of a called function, `tight` the head of a two-instruction loop,
# `alone` one instruction that jumps to itself.

    .equ HITS, 1000000

    .macro NAME
    .ascii "HOT"
    .endm
    .include "common.inc.S"

main:
    GATE 0x20, tick
    START_TIMER 1193
    xor %ebx, %ebx
    mov $HITS, %ecx
1:  call hot
    dec %ecx
    jnz 1b
    mov $HITS, %ecx
    .globl tight
tight:
    dec %ecx
    jnz tight
    mov $HITS, %ecx
    .globl alone
alone:
    loop alone
    STOP_TIMER
    MIX %rcx
    mov %rbx, %rax
    ret

    .globl hot
hot:
    MIX %rcx
    ret
