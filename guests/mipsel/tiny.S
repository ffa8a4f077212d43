# The tiny guest for `-M malta`: kernel mode, 16550 behind PCI, the CP0 timer, power-off by
# the PIIX4. The work is the same as in ../aarch64/tiny.S. ../mips/tiny.S includes this for
# the big-endian board, whose bridge swaps configuration data but not its own registers.

    .equ UART,      0xb80003f8
    .equ PCI_IO,    0xb8000000
    .equ PCI_INDEX, 0xbbe00cf8      # GT-64120 configuration registers
    .equ PCI_DATA,  0xbbe00cfc
    # PIIX4's power management, bus 0, device 10, function 3: its base and enable bit, as the
    # bridge's index register is to be written; soft-off (SLP_EN) for a 16-bit port.
    .ifdef BIG
    .equ PM_REG40,  0x40530080
    .equ PM_REG80,  0x80530080
    .equ SOFT_OFF,  0x0020
    .else
    .equ PM_REG40,  0x80005340
    .equ PM_REG80,  0x80005380
    .equ SOFT_OFF,  0x2000
    .endif
    .equ PM_BASE,   0x1000
    .equ PERIOD,    100000          # 1 ms at 100 MHz
    .equ PATTERN,   0x80200000
    .equ SCRATCH,   0x80400000
    .equ PHASES,    4
    .equ WORK,      250000
    .equ IDLE,      50

    .set noat
    .set noreorder
    .text
    .globl start
start:
    mtc0 $zero, $12                 # Status: no interrupts, vectors in RAM
    ehb
    la $sp, stack_top
    li $t0, 0x80000180              # general exceptions
    la $t1, to_exception
    lw $t2, 0($t1)
    lw $t3, 4($t1)
    sw $t2, 0($t0)
    sw $t3, 4($t0)
    la $a0, start_text
    jal puts
    nop

    li $t0, PATTERN
    li $t1, 0x9e3779b1
    li $t2, 0
    li $t3, 1024
1:  sw $t2, 0($t0)
    addu $t2, $t2, $t1
    addiu $t3, $t3, -1
    bnez $t3, 1b
    addiu $t0, $t0, 4

    mfc0 $t0, $9                    # Count
    li $t1, PERIOD
    addu $t0, $t0, $t1
    mtc0 $t0, $11                   # Compare
    mtc0 $zero, $13
    li $t0, 0x8001                  # timer interrupt, IE
    mtc0 $t0, $12
    ehb

    li $s0, 1                       # x
    li $s1, 0                       # sum
    li $s2, PHASES
    li $s3, 1664525
    li $s4, 1013904223
    li $s5, SCRATCH
    li $s7, 0xffffc
phase:
    li $s6, WORK
work:
    mul $s0, $s0, $s3
    addu $s0, $s0, $s4
    srl $t0, $s0, 10
    and $t0, $t0, $s7
    addu $t0, $t0, $s5
    addiu $s6, $s6, -1
    bnez $s6, work
    sw $s0, 0($t0)
    rotr $s1, $s1, 25
    addu $s1, $s1, $s0
    la $a0, phase_text
    jal puts
    addiu $s2, $s2, -1
    bnez $s2, phase
    nop

    la $s2, ticks
    lw $s3, 0($s2)
    addiu $s3, $s3, IDLE
idle:
    wait
    lw $t0, 0($s2)
    sltu $t0, $t0, $s3
    bnez $t0, idle
    nop
    mtc0 $zero, $12
    ehb

    la $a0, sum_text
    jal puts
    nop
    jal puthex
    move $a0, $s1
    la $a0, done_text
    jal puts
    nop
power_off:
    li $t0, PCI_INDEX
    li $t1, PCI_DATA
    li $t2, PM_REG40
    sw $t2, 0($t0)
    li $t2, PM_BASE + 1
    sw $t2, 0($t1)
    li $t2, PM_REG80
    sw $t2, 0($t0)
    li $t2, 1
    sw $t2, 0($t1)
    li $t0, PCI_IO + PM_BASE + 4
    li $t2, SOFT_OFF
    sh $t2, 0($t0)
1:  b 1b
    nop

to_exception:
    j exception
    nop

exception:
    mfc0 $k0, $13                   # Cause
    andi $k0, $k0, 0x7c
    bnez $k0, unexpected
    mfc0 $k0, $9                    # not from Compare: a tick missed would take 27 s
    li $k1, PERIOD
    addu $k0, $k0, $k1
    mtc0 $k0, $11                   # also clears the interrupt
    la $k0, ticks
    lw $k1, 0($k0)
    addiu $k1, $k1, 1
    sw $k1, 0($k0)
    ehb
    eret

unexpected:
    la $a0, unexpected_text
    jal puts
    nop
    jal puthex
    mfc0 $a0, $14                   # EPC
    b power_off
    nop

# Prints the NUL-terminated string at $a0.
puts:
    li $t0, UART
1:  lbu $t1, 0($a0)
    beqz $t1, 3f
    addiu $a0, $a0, 1
2:  lbu $t2, 5($t0)
    andi $t2, $t2, 0x20             # transmitter holding register empty
    beqz $t2, 2b
    nop
    b 1b
    sb $t1, 0($t0)
3:  jr $ra
    nop

# Prints $a0 as 8 hexadecimal digits.
puthex:
    li $t0, UART
    li $t3, 8
1:  rotr $a0, $a0, 28
    andi $t1, $a0, 15
    sltiu $t2, $t1, 10
    bnez $t2, 2f
    addiu $t1, $t1, '0'
    addiu $t1, $t1, 'a' - '0' - 10
2:  lbu $t2, 5($t0)
    andi $t2, $t2, 0x20
    beqz $t2, 2b
    nop
    sb $t1, 0($t0)
    addiu $t3, $t3, -1
    bnez $t3, 1b
    nop
    jr $ra
    nop

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
stack_top:
