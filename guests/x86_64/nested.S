# Nested interrupts: the timer handler opens interrupts and waits for the next tick until
# DEPTH handlers are stacked, and each level also takes a serial interrupt.

    .equ TICKS, 1500
    .equ DEPTH, 4

    .macro NAME
    .ascii "NESTED"
    .endm
    .include "common.inc.S"

main:
    GATE 0x20, nesting_tick
    GATE 0x24, serial
    START_TIMER 400             # 3 kHz
    mov $0xee, %al              # IRQ 0 and 4
    out %al, $(PIC1 + 1)
    mov $1, %r12d
1:  XORSHIFT %r12               # something to interrupt
    cmpl $TICKS, ticks(%rip)
    jb 1b
2:  cmpl $0, depth(%rip)        # let the stacked handlers return
    jne 2b
    STOP_TIMER
    xor %ebx, %ebx
    MIX ticks(%rip)
    MIX serials(%rip)
    MIX deepest(%rip)
    mov %rbx, %rax
    ret

nesting_tick:
    push %rax
    push %rcx
    push %rdx
    mov ticks(%rip), %rcx
    cmp $TICKS, %rcx
    jae 5f                      # enough: leave the count exact
    inc %rcx
    mov %rcx, ticks(%rip)
    incq depth(%rip)
    mov depth(%rip), %rax
    cmp deepest(%rip), %rax
    jbe 1f
    mov %rax, deepest(%rip)
1:  END_OF_INTERRUPT
    mov serials(%rip), %rcx
    mov $(COM1 + 1), %edx
    mov $2, %al                 # transmitter empty: raises IRQ 4 at once
    out %al, %dx
    sti
2:  cmp %rcx, serials(%rip)
    je 2b
    mov ticks(%rip), %rcx
3:  cmp $TICKS, %rcx
    jae 4f
    cmpl $DEPTH, depth(%rip)
    jae 4f
    cmp %rcx, ticks(%rip)       # wait for a tick to nest in here
    je 3b
4:  cli
    decq depth(%rip)
    pop %rdx
    pop %rcx
    pop %rax
    iretq
5:  END_OF_INTERRUPT
    pop %rdx
    pop %rcx
    pop %rax
    iretq

serial:
    push %rax
    push %rdx
    mov $(COM1 + 1), %edx
    xor %eax, %eax
    out %al, %dx
    inc %edx
    in %dx, %al                 # reading the cause acknowledges it
    incq serials(%rip)
    END_OF_INTERRUPT
    pop %rdx
    pop %rax
    iretq

    .bss
depth:   .skip 8
deepest: .skip 8
serials: .skip 8
