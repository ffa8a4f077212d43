@ What all guests for `-M virt` in 32 bits have in common: SVC mode, PL011, GICv2, the virtual
@ timer, PSCI.
@
@ Who includes this defines NAME, an .ascii, and WORK, which leaves the checksum in r5; with
@ STEPS_OVER, exceptions are added to that and stepped over.

    .equ UART,    0x09000000
    .equ GICD,    0x08000000
    .equ GICC,    0x08010000
    .equ TIMER,   27                @ interrupt number of the virtual timer
    .equ PERIOD,  62500             @ 1 ms at 62.5 MHz
    .equ PATTERN, 0x40200000

    .arch armv7ve
    .arm
    .text
    .balign 32
vectors:
    .ifdef STEPS_OVER
    b unexpected
    b undefined
    b call
    b prefetch_abort
    b data_abort
    .else
    .rept 5
    b unexpected
    .endr
    .endif
    b unexpected
    b interrupt
    b unexpected

    .globl start
start:
    cps #0x12                       @ IRQ mode, for its stack
    ldr sp, =irq_stack_top
    cps #0x13
    ldr sp, =stack_top
    ldr r0, =vectors
    mcr p15, 0, r0, c12, c0, 0      @ VBAR
    isb
    ldr r0, =start_text
    bl puts

    ldr r0, =PATTERN
    ldr r1, =0x9e3779b1
    mov r2, #0
    mov r3, #1024
1:  str r2, [r0], #4
    add r2, r2, r1
    subs r3, r3, #1
    bne 1b

    ldr r0, =GICD
    mov r1, #(1 << TIMER)
    str r1, [r0, #0x100]            @ ISENABLER0
    mov r1, #1
    str r1, [r0]
    ldr r0, =GICC
    mov r2, #0xff
    str r2, [r0, #4]                @ priority mask
    str r1, [r0]
    ldr r0, =PERIOD
    mcr p15, 0, r0, c14, c3, 0      @ CNTV_TVAL
    mcr p15, 0, r1, c14, c3, 1      @ CNTV_CTL
    cpsie i

    WORK                            @ sum in r5

    ldr r0, =sum_text
    bl puts
    mov r0, r5
    bl puthex
    ldr r0, =done_text
    bl puts
power_off:
    ldr r0, =0x84000008             @ PSCI SYSTEM_OFF
    .arch_extension virt
    hvc #0
    b .

unexpected:
    ldr sp, =stack_top
    mov r4, lr
    ldr r0, =unexpected_text
    bl puts
    mov r0, r4
    bl puthex
    b power_off

    .ifdef STEPS_OVER
undefined:                          @ lr is behind it
    add r5, r5, #1
    ror r5, r5, #25
    movs pc, lr
call:
    add r5, r5, #2
    ror r5, r5, #25
    movs pc, lr
prefetch_abort:                     @ of a call: back to where it was made
    add r5, r5, #3
    ror r5, r5, #25
    cps #0x13
    mov r0, lr
    cps #0x17
    mov lr, r0
    movs pc, lr
data_abort:
    add r5, r5, #4
    ror r5, r5, #25
    subs pc, lr, #4
    .endif

interrupt:
    sub lr, lr, #4
    push {r0-r2, lr}
    ldr r0, =GICC
    ldr r1, [r0, #0xc]              @ acknowledge
    ldr r2, =PERIOD
    mcr p15, 0, r2, c14, c3, 0
    str r1, [r0, #0x10]             @ end of interrupt
    ldr r0, =ticks
    ldr r1, [r0]
    add r1, r1, #1
    str r1, [r0]
    ldm sp!, {r0-r2, pc}^           @ and back to the interrupted mode

@ Prints the NUL-terminated string at r0.
puts:
    ldr r3, =UART
1:  ldrb r1, [r0], #1
    cmp r1, #0
    bxeq lr
2:  ldr r2, [r3, #0x18]
    tst r2, #0x20                   @ transmit FIFO full
    bne 2b
    str r1, [r3]
    b 1b

@ Prints r0 as 8 hexadecimal digits.
puthex:
    ldr r3, =UART
    mov r12, #8
1:  ror r0, r0, #28
    and r1, r0, #15
    add r1, r1, #'0'
    cmp r1, #'9'
    addhi r1, r1, #('a' - '0' - 10)
2:  ldr r2, [r3, #0x18]
    tst r2, #0x20
    bne 2b
    str r1, [r3]
    subs r12, r12, #1
    bne 1b
    bx lr

    .data
    .include "../texts.inc.S"

    .bss
    .balign 8
ticks:  .skip 8
        .skip 1024
irq_stack_top:
        .skip 1024
stack_top:
