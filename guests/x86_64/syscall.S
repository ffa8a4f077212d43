# Ring 3 and back: syscall/sysret, int 0x80, #GP from ring 3, timer ticks in both rings.

    .equ TURNS, 50000

    .macro NAME
    .ascii "SYSCALL"
    .endm
    .include "common.inc.S"

main:
    GATE 0x20, tick
    GATE 0x80, by_interrupt, dpl=3
    GATE 13, user_protection
    mov $0xc0000081, %ecx       # STAR
    xor %eax, %eax
    mov $((UBASE + 3) << 16 | KCODE), %edx
    wrmsr
    inc %ecx                    # LSTAR
    lea by_syscall(%rip), %rax
    xor %edx, %edx
    wrmsr
    mov $0xc0000084, %ecx       # FMASK: interrupts off on entry
    mov $0x200, %eax
    wrmsr
    xor %ebx, %ebx
    START_TIMER 200             # 6 kHz
    push $UDATA
    lea user_stack_top(%rip), %rax
    push %rax
    push $0x202
    push $UCODE
    lea user(%rip), %rax
    push %rax
    iretq

# Ring 3. %rbx is the checksum, which either way into the kernel extends.
user:
    mov $1, %r12d
    mov $TURNS, %r14d
turn:
    XORSHIFT %r12
    mov %r12, %rdi
    xor %eax, %eax
    syscall
    add %rax, %r12
    mov %r12, %rdi
    int $0x80
    xor %rax, %r12
    test $0xff, %r14b
    jnz 1f
    cli                         # not allowed here: #GP, the kernel steps over it
1:  dec %r14d
    jnz turn
    mov $1, %eax
    syscall

# %rax = 0: extend the checksum by %rdi; 1: finish.
by_syscall:
    mov %rsp, user_rsp(%rip)
    mov $kernel_stack_top, %rsp
    push %rcx
    push %r11
    cmp $1, %eax
    je finish
    MIX %rdi
    mov %ebx, %eax
    pop %r11
    pop %rcx
    mov user_rsp(%rip), %rsp
    sysretq

by_interrupt:
    MIX %rdi
    mov %rbx, %rax
    shr $32, %rax
    iretq

user_protection:
    add $8, %rsp                # error code
    incq (%rsp)                 # cli is one byte
    MIX $0x0d
    iretq

finish:
    STOP_TIMER
    mov $boot_stack_top - 8, %rsp
    mov %rbx, %rax
    ret                         # to start64, as main would have

    .bss
user_rsp:   .skip 8
            .balign 16
            .skip 1024
user_stack_top:
            .skip 1024
kernel_stack_top:
