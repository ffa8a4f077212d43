| The tiny guest for `-M virt`: supervisor mode, MMU off, goldfish console, interrupt
| controllers and clock. The work is the same as in ../aarch64/tiny.S.

    .equ PIC6,    0xff005000        | its first input is the clock; CPU level 6
    .equ RTC,     0xff006000
    .equ TTY,     0xff008000
    .equ CONTROL, 0xff009000
    .equ PERIOD,  1000000           | 1 ms in nanoseconds
    .equ PATTERN, 0x200000
    .equ SCRATCH, 0x400000
    .equ PHASES,  4
    .equ WORK,    250000
    .equ IDLE,    50

    .text
    .globl start
start:
    move.w #0x2700, %sr
    lea stack_top, %sp
    sub.l %a0, %a0
    movec %a0, %vbr
    move.w #255, %d0
1:  move.l #unexpected, (%a0)+
    dbra %d0, 1b
    move.l #interrupt, 30 * 4       | autovector of level 6
    lea start_text, %a0
    bsr puts

    lea PATTERN, %a0
    clr.l %d0
    move.w #1023, %d1
1:  move.l %d0, (%a0)+
    add.l #0x9e3779b1, %d0
    dbra %d1, 1b

    move.l #1, PIC6 + 0x10          | enable
    move.l #1, RTC + 0x10
    bsr next_tick
    move.w #0x2000, %sr

    moveq #1, %d2                   | x
    clr.l %d3                       | sum
    moveq #PHASES, %d4
    lea SCRATCH, %a2
phase:
    move.l #WORK, %d5
work:
    mulu.l #1664525, %d2
    add.l #1013904223, %d2
    move.l %d2, %d0
    moveq #10, %d1
    lsr.l %d1, %d0
    and.l #0xffffc, %d0
    move.l %d2, (%a2, %d0.l)
    subq.l #1, %d5
    bne work
    rol.l #7, %d3
    add.l %d2, %d3
    lea phase_text, %a0
    bsr puts
    subq.l #1, %d4
    bne phase

    move.l ticks, %d4
    add.l #IDLE, %d4
idle:
    stop #0x2000
    cmp.l ticks, %d4
    bhi idle
    move.w #0x2700, %sr

    lea sum_text, %a0
    bsr puts
    move.l %d3, %d0
    bsr puthex
    lea done_text, %a0
    bsr puts
power_off:
    move.l #2, CONTROL + 4          | halt
1:  bra 1b

unexpected:
    lea unexpected_text, %a0
    bsr puts
    move.l 2(%sp), %d0              | program counter
    bsr puthex
    bra power_off

interrupt:
    movem.l %d0-%d1, -(%sp)
    move.l #1, RTC + 0x1c           | clear the interrupt
    bsr next_tick
    addq.l #1, ticks
    movem.l (%sp)+, %d0-%d1
    rte

| Alarm in PERIOD; reading the low half of the time latches the high half.
next_tick:
    move.l RTC, %d0
    move.l RTC + 4, %d1
    add.l #PERIOD, %d0
    bcc 1f
    addq.l #1, %d1
1:  move.l %d1, RTC + 0xc
    move.l %d0, RTC + 8             | arms it
    rts

| Prints the NUL-terminated string at a0.
puts:
    clr.l %d0
1:  move.b (%a0)+, %d0
    beq 2f
    move.l %d0, TTY
    bra 1b
2:  rts

| Prints d0 as 8 hexadecimal digits.
puthex:
    moveq #7, %d1
1:  rol.l #4, %d0
    move.l %d0, %d6
    and.l #15, %d6
    lea digits, %a0
    move.b (%a0, %d6.l), %d6
    move.l %d6, TTY
    dbra %d1, 1b
    rts

    .data
digits:          .ascii "0123456789abcdef"
start_text:      .asciz "TINY-START\n"
phase_text:      .asciz "TINY-PHASE\n"
sum_text:        .asciz "TINY-SUM "
done_text:       .asciz "\nTINY-DONE\n"
unexpected_text: .asciz "\nTINY-UNEXPECTED "

    .bss
    .balign 4
ticks:  .skip 4
        .skip 1024
stack_top:
