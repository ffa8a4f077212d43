// Instructions that access 1 to 64 bytes at once or in parts, at every place around a page
// border whose pages lie apart in RAM. What each accesses is in a table (../accesses.inc.S).

    .equ UART,       0x09000000
    .equ PATTERN,    0x40200000
    .equ TABLES,     0x40300000         // level 1, 2 and 3, a page each
    .equ WINDOW,     0x80000000
    .equ BORDER,     WINDOW + 0x1000
    .equ LOW_FRAME,  0x40405000
    .equ HIGH_FRAME, 0x40401000
    .equ FARTHEST,   68                 // bytes before the border where the first round is
    .equ NORMAL,     0x700              // AF, inner shareable, MAIR's attribute 0
    .equ DEVICE,     0x404              // AF, attribute 1

    .macro NAME
    .ascii "WIDE"
    .endm
    .include "../accesses.inc.S"

// Other bytes to store in x5, x6, q0 and q1.
    .macro FRESH
    add x5, x5, x7
    eor x6, x6, x5, ror #23
    .endm
    .macro FRESH_VECTOR
    FRESH
    ins v0.d[0], x5
    ins v0.d[1], x6
    FRESH
    ins v1.d[0], x5
    ins v1.d[1], x6
    .endm

    .text
    .balign 2048
vectors:
    .rept 16
    b unexpected
    .balign 128
    .endr

    .globl start
start:
    ldr x0, =stack_top
    mov sp, x0
    ldr x0, =vectors
    msr vbar_el1, x0
    mov x0, #(3 << 20)                  // floating point is allowed
    msr cpacr_el1, x0
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
    bl map

    ldr x2, =BORDER - FARTHEST
    ldr x3, =BORDER + 2
    ldr x5, =0x0123456789abcdef
    mov x6, x5
    ldr x7, =0x9e3779b97f4a7c15
    mov w20, #0
round:
    bl plain
    bl pairs
    bl vectors_of_bytes
    tst x2, #15
    b.ne 1f
    bl aligned
1:  bl fold
    add x2, x2, #1
    cmp x2, x3
    b.ne round

    ldr x0, =sum_text
    bl puts
    mov w0, w20
    bl puthex
    ldr x0, =done_text
    bl puts
power_off:
    ldr w0, =0x84000008                 // PSCI SYSTEM_OFF
    hvc #0
    b .

unexpected:
    ldr x0, =unexpected_text
    bl puts
    mrs x0, esr_el1
    bl puthex
    b power_off

// 39-bit addresses: the first GB devices, RAM one to one, and two pages at WINDOW.
map:
    ldr x0, =TABLES
    ldr x1, =DEVICE + 1
    str x1, [x0]
    ldr x1, =0x40000000 + NORMAL + 1
    str x1, [x0, #8]
    ldr x1, =TABLES + 0x1000 + 3
    str x1, [x0, #16]
    ldr x0, =TABLES + 0x1000
    ldr x1, =TABLES + 0x2000 + 3
    str x1, [x0]
    ldr x0, =TABLES + 0x2000
    ldr x1, =LOW_FRAME + NORMAL + 3
    str x1, [x0]
    ldr x1, =HIGH_FRAME + NORMAL + 3
    str x1, [x0, #8]
    ldr x0, =0x00ff
    msr mair_el1, x0
    ldr x0, =0x803519                   // T0SZ 25, cached, inner shareable, 4 KB, no TTBR1
    msr tcr_el1, x0
    ldr x0, =TABLES
    msr ttbr0_el1, x0
    dsb sy
    isb
    mrs x0, sctlr_el1
    orr x0, x0, #1                      // MMU
    bic x0, x0, #2                      // no alignment check
    msr sctlr_el1, x0
    isb
    ret

plain:
    FRESH
    ACCESS x2, 0, 1, WRITE, 1
    strb w5, [x2]
    ACCESS x2, 1, 2, WRITE, 2
    strh w5, [x2, #1]
    ACCESS x2, 3, 4, WRITE, 4
    stur w5, [x2, #3]
    ACCESS x2, 7, 8, WRITE, 8
    stur x6, [x2, #7]
    ACCESS x2, 0, 4, READ, 4
    ldrsw x9, [x2]
    ACCESS x2, 5, 8, READ, 8
    ldur x9, [x2, #5]
    ret

pairs:
    FRESH_VECTOR
    ACCESS x2, 0, 16, WRITE, 16
    stp x5, x6, [x2]
    ACCESS x2, 16, 16, WRITE, 16
    stp x6, x5, [x2, #16]
    ACCESS x2, 0, 16, READ, 16
    ldp x9, x10, [x2]
    ACCESS x2, 4, 8, WRITE, 8
    stp w5, w6, [x2, #4]
    ACCESS x2, 4, 8, READ, 8
    ldpsw x9, x10, [x2, #4]
    ACCESS x2, 0, 32, WRITE, 16
    stp q0, q1, [x2]
    ACCESS x2, 16, 32, READ, 16
    ldp q2, q3, [x2, #16]
    ACCESS x2, 8, 16, WRITE, 8
    stp d0, d1, [x2, #8]
    mov x4, x2
    ACCESS x4, 16, 16, WRITE, 16
    stp x6, x5, [x4, #16]!
    ACCESS x4, 0, 16, READ, 16
    ldp x9, x10, [x4], #16
    ret

vectors_of_bytes:
    FRESH_VECTOR
    ACCESS x2, 3, 16, WRITE, 16
    stur q0, [x2, #3]
    ACCESS x2, 1, 16, READ, 16
    ldur q2, [x2, #1]
    mov v2.16b, v1.16b
    mov v3.16b, v0.16b
    ACCESS x2, 0, 64, WRITE, 0
    st1 {v0.16b-v3.16b}, [x2]
    ACCESS x2, 0, 64, READ, 0
    ld1 {v2.16b-v5.16b}, [x2]
    FRESH_VECTOR
    ACCESS x2, 0, 32, WRITE, 0
    st2 {v0.4s, v1.4s}, [x2]
    ACCESS x2, 0, 3, WRITE, 1
    st3 {v0.b, v1.b, v2.b}[5], [x2]
    ret

aligned:
    FRESH
    ACCESS x2, 0, 8, WRITE, 8
    stlr x5, [x2]
    ACCESS x2, 0, 16, READ, 16
    ldxp x9, x10, [x2]
    ACCESS x2, 0, 16, READ|WRITE, 16
    stxp w11, x6, x5, [x2]
    ACCESS x2, 0, 8, READ, 8
    ldaxr x9, [x2]
    ret

// What was stored, into the sum.
fold:
    ACCESS x2, 0, 8, READ, 8
    ldr x0, [x2]
    ror w20, w20, #25
    add w20, w20, w0
    ret

    .include "console.inc.S"

    .data
    .include "../texts.inc.S"
    .bss
    .balign 16
        .skip 4096
stack_top:
