# One page of code mapped at three addresses, called at each in turn, with timer interrupts
# in between: QEMU translates it once and runs that at all of them.

    .equ ROUNDS, 3000
    .equ FIRST, WINDOW + 0x3000
    .equ SECOND, WINDOW + 0x8000

    .macro NAME
    .ascii "ALIASES"
    .endm
    .include "common.inc.S"

main:
    GATE 0x20, tick
    START_TIMER 1193
    mov $shared + 7, %eax
    mov %rax, window_pt + 8 * ((FIRST - WINDOW) / 4096)
    mov %rax, window_pt + 8 * ((SECOND - WINDOW) / 4096)
    mov %cr3, %rax
    mov %rax, %cr3
    xor %ebx, %ebx
    mov $0x1234567, %r12d
    mov $ROUNDS, %r14d
1:  XORSHIFT %r12
    mov $shared, %r13d
    call *%r13
    mov $FIRST, %r13d
    test $1, %r12b              # at times one of the three is left out
    jz 2f
    call *%r13
2:  mov $SECOND, %r13d
    call *%r13
    dec %r14d
    jnz 1b
    STOP_TIMER
    mov %rbx, %rax
    ret

# Mixes %r12 and the address it runs at into %rbx, in a few blocks.
    .balign 4096
    .globl shared, shared_loop
shared:
    lea shared(%rip), %rax
    MIX %rax
    mov $4, %ecx
shared_loop:
    MIX %r12
    dec %ecx
    jnz shared_loop
    test $2, %r12b
    jnz 1f
    inc %rbx
1:  ret
