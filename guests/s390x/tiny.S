# The tiny guest for `-M s390-ccw-virtio`: 64-bit mode, the SCLP's ASCII console, the
# clock comparator, power-off by a special wait state. The work is that of ../aarch64/tiny.S.

    .equ WRITE_EVENT, 0x00760005
    .equ PERIOD,  4096000           # 1 ms in units of the TOD clock
    .equ PATTERN, 0x200000
    .equ SCRATCH, 0x400000
    .equ PHASES,  4
    .equ WORK,    250000
    .equ IDLE,    50

    # Lowcore offsets (z/Architecture Principles of Operation, "Assigned Storage Locations")
    .equ EXTERNAL_OLD_PSW, 0x130
    .equ PROGRAM_OLD_PSW,  0x150
    .equ EXTERNAL_NEW_PSW, 0x1b0
    .equ PROGRAM_NEW_PSW,  0x1d0

    # Ours, low enough for instructions that reach only the first 4 KB without a base.
    .equ ticks,        0xc00
    .equ clock,        0xc08
    .equ save_area,    0xc10
    .equ scratch_byte, 0xc28

    .text
    .globl start
start:
    larl %r1, external_psw
    mvc EXTERNAL_NEW_PSW(16), 0(%r1)
    larl %r1, program_psw
    mvc PROGRAM_NEW_PSW(16), 0(%r1)
    larl %r2, start_text
    brasl %r14, puts

    lgfi %r1, PATTERN
    lhi %r2, 0
    lhi %r3, 1024
1:  st %r2, 0(%r1)
    alfi %r2, 0x9e3779b1
    la %r1, 4(%r1)
    brct %r3, 1b

    brasl %r14, next_tick
    larl %r1, control_0
    lctlg %c0, %c0, 0(%r1)
    stosm scratch_byte, 0x01        # external interrupts on

    lhi %r6, 1                      # x
    lhi %r7, 0                      # sum
    lhi %r8, PHASES
    lgfi %r9, SCRATCH
phase:
    lgfi %r10, WORK
work:
    msfi %r6, 1664525
    alfi %r6, 1013904223
    lr %r1, %r6
    srl %r1, 10
    nilf %r1, 0xffffc
    llgfr %r1, %r1
    st %r6, 0(%r1, %r9)
    brct %r10, work
    rll %r7, %r7, 7
    alr %r7, %r6
    larl %r2, phase_text
    brasl %r14, puts
    brct %r8, phase

    lg %r8, ticks
    aghi %r8, IDLE
idle:
    larl %r1, wait_psw
    lpswe 0(%r1)
awake:
    clg %r8, ticks
    brh idle
    stnsm scratch_byte, 0xfe

    larl %r2, sum_text
    brasl %r14, puts
    lr %r1, %r7
    larl %r2, hex_text
    lhi %r3, 8
1:  rll %r1, %r1, 4
    lr %r4, %r1
    nilf %r4, 15
    llgfr %r4, %r4
    larl %r5, digits
    ic %r4, 0(%r4, %r5)
    stc %r4, 0(%r2)
    la %r2, 1(%r2)
    brct %r3, 1b
    larl %r2, hex_text
    brasl %r14, puts
power_off:
    larl %r1, off_psw
    lpswe 0(%r1)

unexpected:
    larl %r2, unexpected_text
    brasl %r14, puts
    j power_off

# A tick. It ends the wait state it found the processor in.
external:
    stmg %r1, %r2, save_area
    lgr %r2, %r14
    stg %r2, save_area + 16
    brasl %r14, next_tick
    lg %r14, save_area + 16
    lg %r1, ticks
    aghi %r1, 1
    stg %r1, ticks
    ni EXTERNAL_OLD_PSW + 1, 0xfd
    lmg %r1, %r2, save_area
    lpswe EXTERNAL_OLD_PSW

# Clock comparator = now + PERIOD; clobbers r1.
next_tick:
    stck clock
    lg %r1, clock
    algfi %r1, PERIOD
    stg %r1, clock
    sckc clock
    br %r14

# Prints the NUL-terminated string of at most 32 bytes at r2; clobbers r1 to r5.
puts:
    larl %r1, block_data
    lhi %r3, 0
1:  ic %r4, 0(%r2)
    tmll %r4, 0xff
    jz 2f
    stc %r4, 0(%r1)
    la %r1, 1(%r1)
    la %r2, 1(%r2)
    ahi %r3, 1
    j 1b
2:  ahi %r3, 6                      # event header
    larl %r1, event
    sth %r3, 0(%r1)
    ahi %r3, 8                      # block header
    larl %r2, block
    sth %r3, 0(%r2)
    lgfi %r1, WRITE_EVENT
    .insn rre, 0xb2200000, %r1, %r2 # servc; its interrupt stays masked
    br %r14

    .data
    .balign 16
external_psw: .quad 0x0000000180000000, external
program_psw:  .quad 0x0000000180000000, unexpected
wait_psw:     .quad 0x0102000180000000, awake
off_psw:      .quad 0x0002000180000000, 0xfff   # QEMU: a clean shutdown
control_0:    .quad 0x800                       # clock comparator subclass
    .balign 128                     # the SCLP takes no block across pages
block:        .short 0
              .byte 0, 0, 0, 0
              .short 0
event:        .short 0
              .byte 0x1a, 0                     # ASCII console
              .short 0
block_data:   .skip 64
digits:          .ascii "0123456789abcdef"
start_text:      .asciz "TINY-START\n"
phase_text:      .asciz "TINY-PHASE\n"
sum_text:        .asciz "TINY-SUM "
hex_text:        .asciz "........\nTINY-DONE\n"
unexpected_text: .asciz "\nTINY-UNEXPECTED\n"
