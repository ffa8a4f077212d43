# What all guests for `-M virt -bios none` in 32 and 64 bits have in common: M mode, 16550 UART,
# ACLINT timer, test finisher.
#
# Who includes this defines NAME, an .ascii, and WORK, which leaves the checksum in s1; SLOT
# operation, register, number: to or from a place on the stack; PUT_DEADLINE: the time in t1
# into the 64-bit register at t0, t2 is free; and, in 32 bits, the instructions on words that
# only RV64 has. With STEPS_OVER defined, FAULT takes the exception whose cause is in t0.

    .equ UART,     0x10000000
    .equ MTIMECMP, 0x02004000
    .equ MTIME,    0x0200bff8
    .equ FINISHER, 0x00100000
    .equ PERIOD,   10000            # 1 ms at 10 MHz
    .equ PATTERN,  0x80200000

    .option norelax
    .text
    .globl start
start:
    la sp, stack_top
    la t0, trap
    csrw mtvec, t0
    la a0, start_text
    call puts

    li t0, PATTERN
    li t1, 0x9e3779b1
    li t2, 0
    li t3, 1024
1:  sw t2, 0(t0)
    addw t2, t2, t1
    addi t0, t0, 4
    addi t3, t3, -1
    bnez t3, 1b

    call next_tick
    li t0, 0x80                     # mie.MTIE
    csrw mie, t0
    csrsi mstatus, 8                # mstatus.MIE

    WORK                            # sum in s1

    la a0, sum_text
    call puts
    mv a0, s1
    call puthex
    la a0, done_text
    call puts
power_off:
    li t0, FINISHER
    li t1, 0x5555
    sw t1, 0(t0)
    j .

# mtimecmp = mtime + PERIOD; clobbers t0 to t2.
next_tick:
    li t0, MTIME
    ld t1, 0(t0)
    li t2, PERIOD
    add t1, t1, t2
    li t0, MTIMECMP
    PUT_DEADLINE
    ret

    .balign 4
trap:
    addi sp, sp, -32
    SLOT sd, t0, 0
    SLOT sd, t1, 1
    SLOT sd, t2, 2
    SLOT sd, ra, 3
    csrr t0, mcause
    .ifdef STEPS_OVER
    bgez t0, exception
    .else
    bgez t0, unexpected             # not an interrupt
    .endif
    call next_tick
    la t0, ticks
    ld t1, 0(t0)
    addi t1, t1, 1
    sd t1, 0(t0)
    .ifdef STEPS_OVER
leave:
    .endif
    SLOT ld, t0, 0
    SLOT ld, t1, 1
    SLOT ld, t2, 2
    SLOT ld, ra, 3
    addi sp, sp, 32
    mret

    .ifdef STEPS_OVER
exception:
    FAULT
    .endif
unexpected:
    la a0, unexpected_text
    call puts
    csrr a0, mcause
    call puthex
    j power_off

# Prints the NUL-terminated string at a0.
puts:
    li t0, UART
1:  lbu t1, 0(a0)
    beqz t1, 3f
    addi a0, a0, 1
2:  lbu t2, 5(t0)
    andi t2, t2, 0x20               # transmitter holding register empty
    beqz t2, 2b
    sb t1, 0(t0)
    j 1b
3:  ret

# Prints the low word of a0 as 8 hexadecimal digits.
puthex:
    li t0, UART
    li t3, 8
1:  srliw t1, a0, 28
    slliw a0, a0, 4
    addi t1, t1, '0'
    li t2, '9'
    ble t1, t2, 2f
    addi t1, t1, 'a' - '0' - 10
2:  lbu t2, 5(t0)
    andi t2, t2, 0x20
    beqz t2, 2b
    sb t1, 0(t0)
    addi t3, t3, -1
    bnez t3, 1b
    ret

    .data
    .include "../texts.inc.S"

    .bss
    .balign 16
ticks:  .skip 16
        .skip 4096
stack_top:
