# The timer of the local APIC, as every modern kernel uses it, in place of the PIT.
#
# The APIC's registers are mapped at WINDOW. PHASES times WORK rounds of xorshift64, each round
# storing into 1 MB at SCRATCH, then IDLE ticks awaited in hlt.

    .equ PHASES, 4
    .equ WORK,   100000
    .equ IDLE,   20

    .equ APIC,          0xfee00000
    .equ EOI,           0x0b0
    .equ SPURIOUS,      0x0f0
    .equ LVT_TIMER,     0x320
    .equ INITIAL_COUNT, 0x380
    .equ DIVIDE,        0x3e0

    .macro NAME
    .ascii "APIC"
    .endm
    .include "common.inc.S"

    .macro APIC_SET register, value
    movl $\value, WINDOW + \register
    .endm

main:
    mov $(APIC + 0x13), %eax            # present, writable, not cached
    mov %rax, window_pt
    GATE 0x40, apic_tick
    APIC_SET SPURIOUS, 0x1ff            # enabled, spurious vector 0xff
    APIC_SET DIVIDE, 3                  # by 16
    APIC_SET LVT_TIMER, 0x20040         # periodic, vector 0x40
    APIC_SET INITIAL_COUNT, 62500       # 1 ms of QEMU's 1 GHz
    sti
    mov $1, %r12d
    xor %ebx, %ebx
    xor %r14d, %r14d
phase:
    STORE_ROUNDS WORK
    MIX %r12
    inc %r14d
    cmp $PHASES, %r14d
    jne phase

    mov ticks(%rip), %r13
    add $IDLE, %r13
idle:
    hlt
    cmp %r13, ticks(%rip)
    jb idle
    cli
    APIC_SET LVT_TIMER, 0x10000         # masked
    mov %rbx, %rax
    ret

apic_tick:
    incq ticks(%rip)
    APIC_SET EOI, 0
    iretq
