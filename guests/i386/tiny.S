# The tiny guest in 32-bit protected mode without paging. The work is the same as in
# ../aarch64/tiny.S.

    .equ SCRATCH, 0x400000
    .equ PHASES,  4
    .equ STORES,  250000
    .equ IDLE,    50

    .macro NAME
    .ascii "TINY"
    .endm

    .macro WORK
    mov $1, %ebx                    # x
    xor %edi, %edi                  # sum
    mov $PHASES, %ebp
phase:
    mov $STORES, %ecx
work:
    imul $1664525, %ebx, %ebx
    add $1013904223, %ebx
    mov %ebx, %eax
    shr $10, %eax
    and $0xffffc, %eax
    mov %ebx, SCRATCH(%eax)
    dec %ecx
    jnz work
    rol $7, %edi
    add %ebx, %edi
    mov $phase_text, %esi
    call puts
    dec %ebp
    jnz phase

    mov ticks, %ebp
    add $IDLE, %ebp
idle:
    hlt
    cmp %ebp, ticks
    jb idle
    cli
    .endm

    .include "common.inc.S"

    .data
phase_text: .asciz "TINY-PHASE\n"
