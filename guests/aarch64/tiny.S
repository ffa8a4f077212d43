// The tiny guest for `-M virt`: EL1, MMU off, PL011, GICv2, the virtual timer, PSCI.
//
// PHASES times WORK rounds of x = x * 1664525 + 1013904223 (mod 2^32), each storing x
// somewhere in 1 MB at SCRATCH, then IDLE timer interrupts awaited in wfi. The checksum
// is sum = rotl(sum, 7) + x after each phase.

    .equ UART,    0x09000000
    .equ GICD,    0x08000000
    .equ GICC,    0x08010000
    .equ TIMER,   27                // INTID of the virtual timer
    .equ PERIOD,  62500             // 1 ms at 62.5 MHz
    .equ PATTERN, 0x40200000
    .equ SCRATCH, 0x40400000
    .equ PHASES,  4
    .equ WORK,    250000
    .equ IDLE,    50

    .text
    .balign 2048
vectors:                            // current EL with SP_EL0, then with SP_ELx: IRQ is the 2nd
    .rept 5
    b unexpected
    .balign 128
    .endr
    b interrupt
    .balign 128
    .rept 10
    b unexpected
    .balign 128
    .endr

    .globl start
start:
    ldr x0, =stack_top
    mov sp, x0
    ldr x0, =vectors
    msr vbar_el1, x0
    isb
    ldr x0, =start_text
    bl puts

    ldr x0, =PATTERN
    ldr w1, =0x9e3779b1
    mov w2, #0
    mov w3, #1024
1:  str w2, [x0], #4
    add w2, w2, w1
    subs w3, w3, #1
    b.ne 1b

    ldr x0, =GICD
    mov w1, #(1 << TIMER)
    str w1, [x0, #0x100]            // ISENABLER0
    mov w1, #1
    str w1, [x0]
    ldr x0, =GICC
    mov w2, #0xff
    str w2, [x0, #4]                // priority mask
    str w1, [x0]
    ldr x0, =PERIOD
    msr cntv_tval_el0, x0
    msr cntv_ctl_el0, x1
    msr daifclr, #2

    mov w19, #1                     // x
    mov w20, #0                     // sum
    mov w21, #PHASES
    ldr w22, =1664525
    ldr w23, =1013904223
    ldr x24, =SCRATCH
phase:
    ldr w25, =WORK
work:
    madd w19, w19, w22, w23
    ubfx w26, w19, #12, #18
    str w19, [x24, w26, uxtw #2]
    subs w25, w25, #1
    b.ne work
    ror w20, w20, #25
    add w20, w20, w19
    ldr x0, =phase_text
    bl puts
    subs w21, w21, #1
    b.ne phase

    ldr x21, =ticks
    ldr x22, [x21]
    add x22, x22, #IDLE
idle:
    wfi
    ldr x0, [x21]
    cmp x0, x22
    b.lo idle
    msr daifset, #2

    ldr x0, =sum_text
    bl puts
    mov w0, w20
    bl puthex
    ldr x0, =done_text
    bl puts
power_off:
    ldr w0, =0x84000008             // PSCI SYSTEM_OFF
    hvc #0
    b .

unexpected:
    ldr x0, =unexpected_text
    bl puts
    mrs x0, esr_el1
    bl puthex
    b power_off

interrupt:
    stp x0, x1, [sp, #-32]!
    str x2, [sp, #16]
    ldr x0, =GICC
    ldr w1, [x0, #0xc]              // acknowledge
    ldr x2, =PERIOD
    msr cntv_tval_el0, x2
    str w1, [x0, #0x10]             // end of interrupt
    ldr x0, =ticks
    ldr x1, [x0]
    add x1, x1, #1
    str x1, [x0]
    ldr x2, [sp, #16]
    ldp x0, x1, [sp], #32
    eret

    .include "console.inc.S"

    .data
start_text:      .asciz "TINY-START\n"
phase_text:      .asciz "TINY-PHASE\n"
sum_text:        .asciz "TINY-SUM "
done_text:       .asciz "\nTINY-DONE\n"
unexpected_text: .asciz "\nTINY-UNEXPECTED "

    .bss
    .balign 16
ticks:  .skip 16
        .skip 4096
stack_top:
