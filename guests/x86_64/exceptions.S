# Exceptions where they are awkward: at the end of a block, in the instruction that
# changes the stack, at a bad jump target, with and without an error code, single-step
# traps and a hardware data breakpoint.
#
# Each case leaves its recovery address in %r15; the handler folds the vector and the
# error code into the checksum and goes on there.

    .equ ROUNDS, 2000
    .equ NOT_CANONICAL, 0x0000800000000000

    .macro NAME
    .ascii "EXCEPTIONS"
    .endm
    .include "common.inc.S"

    .macro CATCH name, vector, error_code
\name:
    .if \error_code == 0
    push $0
    .endif
    push %rax
    mov $\vector, %eax
    jmp caught
    .endm

    .macro CASE
    lea 9f(%rip), %r15
    .endm

main:
    GATE 0, divide_error, ist=1
    GATE 1, debug_trap, ist=1
    GATE 3, breakpoint, ist=1
    GATE 6, invalid_opcode, ist=1
    GATE 11, not_present, ist=1
    GATE 12, stack_fault, ist=1
    GATE 13, protection, ist=1
    GATE 14, page_fault, ist=1
    GATE 0x20, tick, ist=2
    movw $0x0e00, idt + 0x2f * 16 + 4   # not present, for the #NP case
    START_TIMER 1193
    xor %ebx, %ebx
    mov $1, %r12d
    mov $ROUNDS, %r14d
round:
    XORSHIFT %r12
    mov %rsp, %rbp
    call plain_cases
    call control_cases
    call debug_cases
    dec %r14d
    jnz round
    STOP_TIMER
    mov %rbx, %rax
    ret

plain_cases:
    CASE
    inc %rbx
    ud2
9:  CASE
    xor %ecx, %ecx
    mov %r12, %rax
    xor %edx, %edx
    div %rcx                    # by zero, right before a jump
    jmp power_off
9:  CASE
    mov $-1, %rdx
    mov $1, %ecx
    div %rcx                    # quotient too large
9:  CASE
    mov $NOT_CANONICAL, %rax
    mov %r12, (%rax)
9:  CASE
    mov $WINDOW, %eax
    addq $1, (%rax)             # absent page
9:  CASE
    mov $0x7b, %eax
    mov %eax, %ds               # selector beyond the GDT
9:  MIX %r12
    ret

# Faults and traps of instructions that end a block.
control_cases:
    CASE
    int3
9:  CASE
    int $0x2f
9:  CASE
    mov $NOT_CANONICAL + 64, %rsp
    push %rax
9:  mov %rbp, %rsp
    sub $8, %rsp                # where this function's return address is
    CASE
    mov $NOT_CANONICAL, %rax
    jmp *%rax
9:  CASE
    push $0                     # iretq to a null code selector
    push $0
    push $0
    push $0
    push $0
    iretq
9:  lea -8(%rbp), %rsp
    CASE
    mov $TSS, %eax
    ltr %ax                     # busy already
9:  CASE
    mov $WINDOW + 0x1000, %eax
    jmp *(%rax)
9:  ret

debug_cases:
    xor %ecx, %ecx
    lea 1f(%rip), %r15
    pushfq
    orq $0x100, (%rsp)          # trap flag: #DB after each instruction from here
    popfq
    add $1, %rcx
    add $2, %rcx
    call 2f
    pushfq
    andq $~0x100, (%rsp)
    popfq
1:  MIX %rcx
    mov $watched, %eax
    mov %rax, %dr0
    mov $0x000d0401, %eax       # DR0: writes of four bytes, this task
    mov %rax, %dr7
    mov %r12d, watched(%rip)
    nop
    xor %eax, %eax
    mov %rax, %dr7
    ret
2:  add $4, %rcx
    ret

    CATCH divide_error, 0, 0
    CATCH breakpoint, 3, 0
    CATCH invalid_opcode, 6, 0
not_present:                    # the error code differs between QEMU 7.2 and 10.0: leave it out
    movq $0, (%rsp)
    push %rax
    mov $11, %eax
    jmp caught
    CATCH stack_fault, 13, 1    # #SS by the manual, #GP by QEMU 7.2 and 10.0: count as one
    CATCH protection, 13, 1
    CATCH page_fault, 14, 1
caught:
    MIX %rax
    pop %rax
    MIX (%rsp)
    mov %r15, 8(%rsp)
    add $8, %rsp
    iretq

# A trap, not a fault: count it and go on where it was.
debug_trap:
    push %rax
    mov %dr6, %rax
    and $0x400f, %eax
    MIX %rax
    xor %eax, %eax
    mov %rax, %dr6
    pop %rax
    iretq

    .bss
    .balign 8
watched: .skip 8
