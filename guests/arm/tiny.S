@ The tiny guest for `-M virt` in 32 bits: SVC mode, MMU off, PL011, GICv2, the virtual
@ timer, PSCI. The work is the same as in ../aarch64/tiny.S.

    .equ UART,    0x09000000
    .equ GICD,    0x08000000
    .equ GICC,    0x08010000
    .equ TIMER,   27                @ interrupt number of the virtual timer
    .equ PERIOD,  62500             @ 1 ms at 62.5 MHz
    .equ PATTERN, 0x40200000
    .equ SCRATCH, 0x40400000
    .equ PHASES,  4
    .equ WORK,    250000
    .equ IDLE,    50

    .arch armv7ve
    .arm
    .text
    .balign 32
vectors:
    b unexpected
    b unexpected
    b unexpected
    b unexpected
    b unexpected
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

    mov r4, #1                      @ x
    mov r5, #0                      @ sum
    mov r6, #PHASES
    ldr r7, =1664525
    ldr r8, =1013904223
    ldr r9, =SCRATCH
phase:
    ldr r10, =WORK
work:
    mla r4, r4, r7, r8
    ubfx r11, r4, #12, #18
    str r4, [r9, r11, lsl #2]
    subs r10, r10, #1
    bne work
    add r5, r4, r5, ror #25
    ldr r0, =phase_text
    bl puts
    subs r6, r6, #1
    bne phase

    ldr r6, =ticks
    ldr r7, [r6]
    add r7, r7, #IDLE
idle:
    wfi
    ldr r0, [r6]
    cmp r0, r7
    blo idle
    cpsid i

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
start_text:      .asciz "TINY-START\n"
phase_text:      .asciz "TINY-PHASE\n"
sum_text:        .asciz "TINY-SUM "
done_text:       .asciz "\nTINY-DONE\n"
unexpected_text: .asciz "\nTINY-UNEXPECTED "

    .bss
    .balign 8
ticks:  .skip 8
        .skip 1024
irq_stack_top:
        .skip 1024
stack_top:
