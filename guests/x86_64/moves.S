# One value on its way: a constant through registers, memory, the stack, a string
# instruction and a vector register, with timer interrupts in between. The labels are the
# instructions that move it, in order; what has other endings is at the end of `main`.

    .equ VALUE, 0x1badb002deadbeef
    .equ ROUNDS, 40000

    .macro NAME
    .ascii "MOVES"
    .endm
    .include "common.inc.S"

main:
    GATE 0x20, tick
    START_TIMER 1193
    .globl way_0, way_1, way_2, way_3, way_4, way_5, way_6, way_7, way_8, way_9, way_10
    .globl way_11, way_12, way_13
way_0:
    movabs $VALUE, %rax
way_1:
    mov %rax, %rcx
way_2:
    mov %rcx, first
    xor %eax, %eax
    call pass
way_3:
    mov first, %rdx
way_4:
    push %rdx
    xor %edx, %edx
    call pass
way_5:
    pop %rsi
    call pass                   # finds no trace of it on the stack
way_6:
    xchg %rsi, second
    call pass
    mov $second, %esi
    mov $third, %edi
way_7:
    movsq
    call pass
    mov $7, %ebp
way_8:
    mov third + 4, %eax         # its upper half
    cmp %eax, %eax
    cmovne %ebp, %eax           # not so
way_9:
    cmove %eax, %ebp            # so it is
way_10:
    movzwl %bp, %r9d
    xor %ebp, %ebp
way_11:
    movq %r9, %xmm0
    xor %r9d, %r9d
way_12:
    movq %xmm0, %r10
way_13:
    mov %r10, fourth

    .globl sum_set, sum_stored, port_read, port_stored, direct_stored, zero_set, zero_stored
    mov first, %rcx
sum_set:
    add %r10, %rcx
sum_stored:
    mov %rcx, sum
port_read:
    in $(PIC1 + 1), %al
port_stored:
    mov %al, port
direct_stored:
    movl $0x1234, direct
zero_set:
    xor %ecx, %ecx
zero_stored:
    mov %rcx, zero
    call pass
    STOP_TIMER
    xor %ebx, %ebx
    MIX third
    MIX fourth
    MIX sum
    mov %rbx, %rax
    ret

# Some 80 000 instructions and ten ticks.
pass:
    mov $ROUNDS, %r11d
1:  dec %r11d
    jnz 1b
    ret

    .bss
    .balign 8
    .globl first, second, third, fourth, sum, port, direct, zero, never
first:
    .skip 8
second:
    .skip 8
third:
    .skip 8
fourth:
    .skip 8
sum:
    .skip 8
port:
    .skip 8
direct:
    .skip 8
zero:
    .skip 8
never:
    .skip 8
