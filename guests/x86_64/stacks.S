# Stack switches: three threads that the timer preempts and that also yield, recursion,
# and traps that take an IST stack in between.

    .equ THREADS, 3
    .equ TURNS, 60000
    .equ STACK_SIZE, 4096
    .equ STACKS, SCRATCH        # thread n owns the n-th STACK_SIZE bytes from here

    .macro NAME
    .ascii "STACKS"
    .endm
    .include "common.inc.S"

    .macro SWITCH_CONTEXT
    push %rax
    push %rbx
    push %rcx
    push %rdx
    push %rsi
    push %rdi
    push %rbp
    push %r12
    mov current(%rip), %rax
    mov %rsp, saved(,%rax,8)
    inc %rax
    cmp $(THREADS + 1), %rax
    jb 1f
    xor %eax, %eax
1:  mov %rax, current(%rip)
    mov saved(,%rax,8), %rsp
    .endm

    .macro RESUME
    pop %r12
    pop %rbp
    pop %rdi
    pop %rsi
    pop %rdx
    pop %rcx
    pop %rbx
    pop %rax
    iretq
    .endm

# Context 0 is main, which only waits; contexts 1 to THREADS compute.
main:
    GATE 0x20, preempt
    GATE 0x30, yield
    GATE 3, on_other_stack, ist=2
    mov $THREADS, %ecx
1:  mov %ecx, %edi
    shl $12, %edi
    add $(STACKS + STACK_SIZE), %edi
    mov %rdi, %rdx
    movq $KDATA, -8(%rdi)       # an interrupt frame as if taken at `thread`
    mov %rdx, -16(%rdi)
    movq $0x202, -24(%rdi)
    movq $KCODE, -32(%rdi)
    lea thread(%rip), %rax
    mov %rax, -40(%rdi)
    mov %rcx, -104(%rdi)        # %r12, the lowest of the eight saved registers
    sub $104, %rdi
    mov %rdi, saved(,%rcx,8)
    dec %ecx
    jnz 1b
    START_TIMER 300             # 4 kHz
2:  int $0x30
    cmpl $THREADS, finished(%rip)
    jb 2b
    STOP_TIMER
    xor %ebx, %ebx
    MIX sums+8(%rip)
    MIX sums+16(%rip)
    MIX sums+24(%rip)
    mov %rbx, %rax
    ret

# %r12 is the thread's number and seed.
thread:
    mov %r12, %rbp
    xor %ebx, %ebx
    mov $TURNS, %ecx
1:  XORSHIFT %r12
    MIX %r12
    test $0x3ff, %ecx
    jnz 2f
    int $0x30
2:  test $0xff, %ecx
    jnz 3f
    int3
    mov $20, %edx
    call recurse
3:  dec %ecx
    jnz 1b
    mov %rbx, sums(,%rbp,8)
    lock incl finished(%rip)
4:  int $0x30
    jmp 4b

recurse:
    push %r12
    XORSHIFT %r12
    dec %edx
    jz 1f
    call recurse
1:  MIX %r12
    pop %r12
    ret

on_other_stack:
    push %rbx                   # lands on the IST stack
    MIX (%rsp)
    add $8, %rsp
    iretq

preempt:
    SWITCH_CONTEXT
    END_OF_INTERRUPT
    incq ticks(%rip)
    RESUME

yield:
    SWITCH_CONTEXT
    RESUME

    .bss
    .balign 8
current:  .skip 8
finished: .skip 8
saved:    .skip 8 * (THREADS + 1)
sums:     .skip 8 * (THREADS + 1)
