# The tiny guest for `-M pseries -bios`: big-endian, real mode, console, idling and
# power-off by hypercalls (PAPR), the decrementer. The work is that of ../aarch64/tiny.S.
# ../ppc64le/tiny.S includes this with LITTLE defined, for the other byte order.

    .equ H_PUT_TERM_CHAR, 0x58
    .equ H_CEDE,          0xe0
    .equ H_SET_MODE,      0x31c
    .equ H_RTAS,          0xf000        # QEMU's own, hw/ppc/spapr_hcall.c
    .equ RTAS_POWER_OFF,  0x2003        # its token there, include/hw/ppc/spapr.h
    .equ PERIOD,          512000        # 1 ms at 512 MHz
    .equ PATTERN,         0x200000
    .equ SCRATCH,         0x400000
    .equ PHASES,          4
    .equ WORK,            250000
    .equ IDLE,            50

    .macro LOAD register, value
    lis \register, (\value)@h
    ori \register, \register, (\value)@l
    .endm

    .text
    .org 0x100
    .globl start
start:
    .ifdef LITTLE
    # The machine starts big-endian: li 4, 0x1000; mtsrr0 4; mfmsr 5; ori 5, 5, 1 (LE);
    # mtsrr1 5; rfid
    .irp word, 0x00108038, 0xa6039a7c, 0xa600a07c, 0x0100a560, 0xa603bb7c, 0x2400004c
    .long \word
    .endr
    .else
    b main
    .endif
    .set vector, 0x200
    .rept 14
    .org vector
    .if vector == 0x900
    b decrementer
    .else
    b unexpected
    .endif
    .set vector, vector + 0x100
    .endr

    .org 0x1000
main:
    .ifdef LITTLE
    li 3, H_SET_MODE                    # interrupts little-endian, too
    li 4, 1
    li 5, 4
    li 6, 0
    li 7, 0
    sc 1
    .endif
    LOAD 3, start_text
    bl puts

    LOAD 4, PATTERN - 4
    LOAD 5, 0x9e3779b1
    li 6, 0
    li 7, 1024
    mtctr 7
1:  stwu 6, 4(4)
    add 6, 6, 5
    bdnz 1b

    LOAD 4, PERIOD
    mtdec 4
    mfmsr 4
    ori 4, 4, 0x8000                    # EE
    mtmsrd 4, 1

    li 14, 1                            # x
    li 15, 0                            # sum
    li 16, PHASES
    LOAD 17, 1664525
    LOAD 18, 1013904223
    LOAD 19, SCRATCH
phase:
    LOAD 20, WORK
    mtctr 20
work:
    mullw 14, 14, 17
    add 14, 14, 18
    rlwinm 14, 14, 0, 0, 31
    rlwinm 21, 14, 22, 12, 29           # (x >> 12) * 4 within 1 MB
    stwx 14, 19, 21
    bdnz work
    rlwinm 15, 15, 7, 0, 31
    add 15, 15, 14
    LOAD 3, phase_text
    bl puts
    addic. 16, 16, -1
    bne phase

    LOAD 16, ticks
    ld 17, 0(16)
    addi 17, 17, IDLE
idle:
    li 3, H_CEDE                        # waits for an interrupt, with EE on
    sc 1
    ld 4, 0(16)
    cmpld 4, 17
    blt idle

    LOAD 3, sum_text
    bl puts
    mr 3, 15
    bl puthex
    LOAD 3, done_text
    bl puts
power_off:
    li 3, 0
    ori 3, 3, H_RTAS
    LOAD 4, rtas_arguments
    sc 1
    b .

decrementer:
    mtsprg0 4
    mtsprg1 5
    LOAD 4, PERIOD
    mtdec 4
    LOAD 4, ticks
    ld 5, 0(4)
    addi 5, 5, 1
    std 5, 0(4)
    mfsprg1 5
    mfsprg0 4
    rfid

unexpected:
    LOAD 3, unexpected_text
    bl puts
    mfsrr0 3
    bl puthex
    b power_off

    .include "../ppc64/console.inc.S"

    .data
    .balign 8
rtas_arguments:
    .ifdef LITTLE                       # big-endian all the same
    .long 0x03200000, 0x02000000, 0x01000000, 0, 0, 0
    .else
    .long RTAS_POWER_OFF, 2, 1, 0, 0, 0
    .endif
start_text:      .asciz "TINY-START\n"
phase_text:      .asciz "TINY-PHASE\n"
sum_text:        .asciz "TINY-SUM "
done_text:       .asciz "\nTINY-DONE\n"
unexpected_text: .asciz "\nTINY-UNEXPECTED "
    .balign 8
ticks:           .quad 0
