# Self-modifying code: the next instruction, one further on in the same block, the head
# of the running loop, another function, code across a page border, code under a running
# `rep movsb`, and code written through a second virtual address.

    .equ ROUNDS, 4000
    .equ ACROSS, SCRATCH + 0xffd
    .equ ALIASED, SCRATCH + 0x10000

    .macro NAME
    .ascii "SMC"
    .endm
    .include "common.inc.S"

main:
    GATE 0x20, tick
    START_TIMER 1193
    movq $(ALIASED + 7), window_pt
    movb $0xb8, ACROSS          # mov $imm32, %eax; ret
    movb $0xc3, ACROSS + 5
    movb $0xb8, ALIASED
    movb $0xc3, ALIASED + 5
    xor %ebx, %ebx
    mov $1, %r12d
    mov $ROUNDS, %r14d
round:
    XORSHIFT %r12
    mov %r12d, next + 1(%rip)
next:
    mov $0, %ecx                # the instruction right behind the store
    MIX %rcx

    mov %r12b, further + 3(%rip)
    nop
    inc %rbx
    nop
further:
    add $0, %rbx                # same block, behind other instructions

    mov %r12d, other + 1(%rip)
    call other
    MIX %rax

    mov $3, %ecx                # a loop that rewrites its own first instruction
head:
    add $0x11111111, %rbx
    add %r12d, head + 3(%rip)
    dec %ecx
    jnz head

    mov %r12d, ACROSS + 1
    mov $ACROSS, %eax
    call *%rax
    MIX %rax

    mov %r12d, WINDOW + 1       # written at one address, run at another
    mov $ALIASED, %eax
    call *%rax
    MIX %rax

    mov %r12d, %eax
    and $1, %eax
    lea replacement(%rip), %rsi
    lea (%rsi,%rax,4), %rsi
    lea victim(%rip), %rdi
    mov $4, %ecx
    rep movsb                   # overwrites what follows it
victim:
    add $0x7f, %rbx
    dec %r14d
    jnz round
    STOP_TIMER
    mov %rbx, %rax
    ret

replacement:
    add $0x15, %rbx
    xor $0x2a, %rbx

    .balign 64
other:
    mov $0, %eax
    ret
