// Exceptions of most kinds, from EL1 and EL0, MMU off, with timer ticks: aborts where nothing
// is, undefined instructions, calls, breakpoints, trapped registers.

    .equ UART,    0x09000000
    .equ GICD,    0x08000000
    .equ GICC,    0x08010000
    .equ TIMER,   27                // INTID of the virtual timer
    .equ PERIOD,  62500             // 1 ms at 62.5 MHz
    .equ PATTERN, 0x40200000
    .equ ABSENT,  0x0b000000        // nothing is there
    .equ ROUNDS,  200

    .macro ENTRY to
    .balign 128
    b \to
    .endm

    .text
    .balign 2048
vectors:
    .rept 4                         // with SP_EL0
    ENTRY unexpected
    .endr
    ENTRY synchronous               // with SP_EL1
    ENTRY interrupt
    ENTRY unexpected
    ENTRY unexpected
    ENTRY synchronous               // from EL0
    ENTRY interrupt
    .rept 6
    ENTRY unexpected
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

    mov w20, #0                     // sum
    mov w21, #ROUNDS
    ldr x22, =ABSENT
round:
    svc #0x17
    udf #1
    brk #0x2a
    ldr w9, [x22, #8]
    str w9, [x22, #12]
    blr x22                         // the handler returns to x30
    adr x0, user
    msr elr_el1, x0
    msr spsr_el1, xzr               // EL0
    eret
user:
    mrs x9, sctlr_el1               // not for EL0
    ldrb w9, [x22, #1]
    svc #0x18                       // back to EL1
    subs w21, w21, #1
    b.ne round
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

// Adds the syndrome to the sum and steps over what faulted, where it is not stepped over yet.
synchronous:
    stp x0, x1, [sp, #-16]!
    mrs x0, esr_el1
    ror w20, w20, #25
    add w20, w20, w0
    lsr w1, w0, #26                 // class
    cmp w1, #0x21
    b.ne 1f
    msr elr_el1, x30
    b 3f
1:  cmp w1, #0x15                   // svc
    b.ne 2f
    and w0, w0, #0xffff
    cmp w0, #0x18
    b.ne 3f
    mov x0, #0x5                    // EL1 with its own stack, interrupts on
    msr spsr_el1, x0
    b 3f
2:  mrs x0, elr_el1
    add x0, x0, #4
    msr elr_el1, x0
3:  ldp x0, x1, [sp], #16
    eret

interrupt:
    stp x0, x1, [sp, #-32]!
    str x2, [sp, #16]
    ldr x0, =GICC
    ldr w1, [x0, #0xc]              // acknowledge
    ldr x2, =PERIOD
    msr cntv_tval_el0, x2
    str w1, [x0, #0x10]             // end of interrupt
    ldr x2, [sp, #16]
    ldp x0, x1, [sp], #32
    eret

    .include "console.inc.S"

    .data
start_text:      .asciz "FAULTS-START\n"
sum_text:        .asciz "FAULTS-SUM "
done_text:       .asciz "\nFAULTS-DONE\n"
unexpected_text: .asciz "\nFAULTS-UNEXPECTED "

    .bss
    .balign 16
        .skip 4096
stack_top:
