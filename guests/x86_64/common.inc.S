# What every x86_64 guest shares: boot to long mode, console, tables, power-off.
#
# A guest defines `main` (returns its checksum in %rax) and the macro NAME through
#     .macro NAME
#     .ascii "TINY"
#     .endm
# before including this file. Common code prints NAME-START, writes the pattern,
# calls main, prints NAME-SUM and NAME-DONE and powers the machine off.
#
# Boot: PVH, 32-bit protected mode without paging (xen/include/public/arch-x86/hvm/
# start_info.h). Memory: image at 1 MB, pattern at 2 MB, page tables and IDT
# at 3 MB (outside the image, whose file would grow by their alignment), scratch from 4 MB.

    .equ COM1,      0x3f8
    .equ PIC1,      0x20
    .equ PIC2,      0xa0
    .equ PIT_CH0,   0x40
    .equ PIT_MODE,  0x43
    # PM1a control; SeaBIOS puts the PM block at 0x600 on pc and q35 alike.
    .equ PM1A_CNT,  0x604
    .equ SLP_EN,    0x2000

    .equ PATTERN,       0x200000
    .equ PATTERN_WORDS, 1024
    .equ PATTERN_STEP,  0x9e3779b1
    .equ TABLES,        0x300000
    .equ SCRATCH,       0x400000
    # 2 MB of 4 KB pages, none present at boot; guests map it through window_pt.
    .equ WINDOW,        0x40000000

    .equ pml4,      TABLES
    .equ pdpt,      TABLES + 0x1000
    .equ pd,        TABLES + 0x2000
    .equ window_pd, TABLES + 0x3000
    .globl window_pt
    .equ window_pt, TABLES + 0x4000
    .equ idt,       TABLES + 0x5000
    .equ TABLES_END, TABLES + 0x6000

    .equ KCODE, 0x08
    .equ KDATA, 0x10
    .equ UBASE, 0x18            # sysret takes %ss from +8 and 64-bit %cs from +16
    .equ UDATA, 0x20 + 3
    .equ UCODE, 0x28 + 3
    .equ TSS,   0x30

    .section .note.pvh, "a", @note
    .balign 4
    .long 4, 8, 18              # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad start32

# Folds a value into the checksum in %rbx: sum = rotl(sum, 7) + value (mod 2^64).
    .macro MIX value
    rol $7, %rbx
    add \value, %rbx
    .endm

# One xorshift64 step on a register; clobbers %rax.
    .macro XORSHIFT reg
    mov \reg, %rax
    shl $13, %rax
    xor %rax, \reg
    mov \reg, %rax
    shr $7, %rax
    xor %rax, \reg
    mov \reg, %rax
    shl $17, %rax
    xor %rax, \reg
    .endm

# Steps %r12 `count` times, storing each into 1 MB at SCRATCH; clobbers %rax, %rcx. Once a guest.
    .macro STORE_ROUNDS count
    mov $\count, %ecx
work:
    XORSHIFT %r12
    mov %r12d, %eax
    and $0xffff8, %eax
    mov %r12, SCRATCH(%rax)
    dec %ecx
    jnz work
    .endm

# Points an interrupt vector at a handler; clobbers %rax, %rdx, %rdi.
    .macro GATE vector, handler, ist=0, dpl=0
    mov $\vector, %edi
    lea \handler(%rip), %rax
    mov $(0x8e00 + (\dpl << 13) + \ist), %edx
    call set_gate
    .endm

# Starts IRQ 0 with a period of 1193182 / divisor Hz; clobbers %rax.
    .macro START_TIMER divisor
    mov $0x34, %al              # channel 0, both bytes, rate generator
    out %al, $PIT_MODE
    mov $(\divisor & 0xff), %al
    out %al, $PIT_CH0
    mov $(\divisor >> 8), %al
    out %al, $PIT_CH0
    mov $0xfe, %al
    out %al, $(PIC1 + 1)
    sti
    .endm

    .macro STOP_TIMER
    cli
    mov $0xff, %al
    out %al, $(PIC1 + 1)
    .endm

    .macro END_OF_INTERRUPT
    mov $0x20, %al
    out %al, $PIC1
    .endm

    .text
    .code32
    .globl start32
start32:
    cli
    cld
    mov $boot_stack_top, %esp
    mov $TABLES, %edi
    mov $((TABLES_END - TABLES) / 4), %ecx
    xor %eax, %eax
    rep stosl
    movl $(pdpt + 7), pml4
    movl $(pd + 7), pdpt
    movl $(window_pd + 7), pdpt + 8
    movl $(window_pt + 7), window_pd
    mov $pd, %edi               # identity map of 1 GB in 2 MB pages, for every ring
    mov $0x87, %eax
1:  mov %eax, (%edi)
    add $0x200000, %eax
    add $8, %edi
    cmp $(pd + 4096), %edi
    jne 1b

    mov $0x620, %eax            # PAE, OSFXSR, OSXMMEXCPT
    mov %eax, %cr4
    mov $pml4, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx       # EFER: SCE, LME
    mov $0x101, %eax
    xor %edx, %edx
    wrmsr
    mov $0x80010033, %eax       # PG, WP, NE, ET, MP, PE
    mov %eax, %cr0
    lgdt gdt_pointer
    ljmp $KCODE, $start64

    .code64
start64:
    mov $KDATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    mov $boot_stack_top, %rsp
    call init_tables
    call init_pic
    call init_serial
    lea banner_start(%rip), %rsi
    call puts
    call write_pattern
    call main
    mov %rax, %rbx
    cli
    lea banner_sum(%rip), %rsi
    call puts
    mov %rbx, %rax
    call puthex
    lea banner_done(%rip), %rsi
    call puts

    .globl power_off
power_off:
    mov $PM1A_CNT, %edx
    mov $SLP_EN, %eax
    out %ax, %dx
1:  cli
    hlt
    jmp 1b

# Fills the IDT with the stubs below, and the TSS descriptor; loads both.
init_tables:
    lea stubs(%rip), %rax
    xor %edi, %edi
1:  mov $0x8e00, %edx
    call set_gate
    add $8, %rax
    inc %edi
    cmp $48, %edi
    jne 1b
    lidt idt_pointer(%rip)
    lea tss(%rip), %rax
    mov %ax, gdt + TSS + 2
    shr $16, %rax
    mov %al, gdt + TSS + 4
    mov $TSS, %eax
    ltr %ax
    ret

# %edi vector, %rax handler, %edx type, DPL and IST as in the gate's second word.
set_gate:
    push %rax
    push %rdi
    shl $4, %rdi
    add $idt, %rdi
    mov %ax, (%rdi)
    movw $KCODE, 2(%rdi)
    mov %dx, 4(%rdi)
    shr $16, %rax
    mov %ax, 6(%rdi)
    movq $0, 8(%rdi)            # every handler lies below 4 GB
    pop %rdi
    pop %rax
    ret

# IRQ 0-15 to vectors 0x20-0x2f, all masked.
init_pic:
    mov $0x11, %al
    out %al, $PIC1
    out %al, $PIC2
    mov $0x20, %al
    out %al, $(PIC1 + 1)
    mov $0x28, %al
    out %al, $(PIC2 + 1)
    mov $4, %al
    out %al, $(PIC1 + 1)
    mov $2, %al
    out %al, $(PIC2 + 1)
    mov $1, %al
    out %al, $(PIC1 + 1)
    out %al, $(PIC2 + 1)
    mov $0xff, %al
    out %al, $(PIC1 + 1)
    out %al, $(PIC2 + 1)
    ret

# 115200 baud, 8N1, FIFOs on, no interrupts.
init_serial:
    lea serial_setup(%rip), %rsi
    mov $7, %ecx
1:  lodsb
    movzbl %al, %edx
    add $COM1, %edx
    lodsb
    out %al, %dx
    dec %ecx
    jnz 1b
    ret

write_pattern:
    xor %eax, %eax
    xor %ecx, %ecx
1:  mov %eax, PATTERN(,%rcx,4)
    add $PATTERN_STEP, %eax
    inc %ecx
    cmp $PATTERN_WORDS, %ecx
    jne 1b
    ret

# Prints %al. Preserves all registers.
putc:
    push %rdx
    push %rax
    mov $(COM1 + 5), %edx
1:  in %dx, %al
    test $0x20, %al             # transmitter holding register empty
    jz 1b
    pop %rax
    mov $COM1, %edx
    out %al, %dx
    pop %rdx
    ret

# Prints the NUL-terminated string at %rsi; leaves %rsi behind it.
puts:
    push %rax
1:  lodsb
    test %al, %al
    jz 2f
    call putc
    jmp 1b
2:  pop %rax
    ret

# Prints %rax as 16 hexadecimal digits. Preserves all registers.
puthex:
    push %rcx
    push %rax
    mov $16, %ecx
1:  rol $4, %rax
    push %rax
    and $15, %al
    add $'0', %al
    cmp $'9', %al
    jbe 2f
    add $('a' - '0' - 10), %al
2:  call putc
    pop %rax
    dec %ecx
    jnz 1b
    pop %rax
    pop %rcx
    ret

# The plain timer handler: counts in `ticks`.
    .globl tick
tick:
    push %rax
    incq ticks(%rip)
    END_OF_INTERRUPT
    pop %rax
    iretq

# A vector no one asked for: print it with the top of the stack, and stop.
unexpected:
    lea banner_unexpected(%rip), %rsi
    call puts
    mov $4, %r12d
1:  mov $' ', %al
    call putc
    pop %rax
    call puthex
    dec %r12d
    jnz 1b
    mov $'\n', %al
    call putc
    jmp power_off

    .balign 8
stubs:
    .set vector, 0
    .rept 48
    push $vector
    jmp unexpected
    .balign 8
    .set vector, vector + 1
    .endr

    .data
serial_setup:                   # register, value
    .byte 3, 0x80, 0, 1, 1, 0, 3, 3, 2, 7, 4, 0x0b, 1, 0

banner_start:
    NAME
    .asciz "-START\n"
banner_sum:
    NAME
    .asciz "-SUM "
banner_done:
    .ascii "\n"
    NAME
    .asciz "-DONE\n"
banner_unexpected:
    .ascii "\n"
    NAME
    .asciz "-UNEXPECTED"

    .balign 8
gdt:
    .quad 0
    .quad 0x00af9b000000ffff    # ring 0 code, 64-bit
    .quad 0x00cf93000000ffff    # ring 0 data
    .quad 0x00cffb000000ffff    # ring 3 code, 32-bit: only a base for sysret
    .quad 0x00cff3000000ffff    # ring 3 data
    .quad 0x00affb000000ffff    # ring 3 code, 64-bit
    .quad 0x0000890000000067    # TSS, base filled in at boot
    .quad 0
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .quad gdt
idt_pointer:
    .word 16 * 256 - 1
    .quad idt

    .balign 8
tss:
    .long 0
    .quad ring0_stack_top, 0, 0
    .quad 0
    .quad ist1_stack_top, ist2_stack_top, 0, 0, 0, 0, 0
    .quad 0
    .long 0x680000

    .bss
    .balign 16
            .skip 4096
boot_stack_top:
            .skip 4096
ring0_stack_top:
            .skip 4096
ist1_stack_top:
            .skip 4096
ist2_stack_top:
    .globl ticks
ticks:      .skip 8
    .text
