# What all guests for PCs in 32-bit protected mode have in common: PVH entry, COM1, the PIT,
# power-off by ACPI on `pc` and `q35` and by its hardware-reduced form on `microvm`.
#
# Who includes this defines NAME, an .ascii, and WORK, which leaves the checksum in %edi.

    .equ COM1,      0x3f8
    .equ PIC1,      0x20
    .equ PIT_CH0,   0x40
    .equ PIT_MODE,  0x43
    .equ DIVISOR,   1193            # 1 kHz
    .equ PM1A_CNT,  0x604           # where SeaBIOS puts it
    .equ SLEEP_CTL, 0xfea00200      # microvm's (hw/i386/microvm.c in QEMU)
    .equ PATTERN,   0x200000
    .equ IDT,       0x300000

    .section .note.pvh, "a", @note
    .balign 4
    .long 4, 4, 18                  # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long start

    .text
    .code32
    .globl start
start:
    cli
    cld
    mov $stack_top, %esp
    lgdt gdt_pointer
    ljmp $8, $1f
1:  mov $16, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss

    mov $IDT, %edi
    mov $48, %ecx
1:  mov $unexpected, %eax
    call set_gate
    add $8, %edi
    loop 1b
    mov $(IDT + 0x20 * 8), %edi
    mov $tick, %eax
    call set_gate
    lidt idt_pointer

    mov $pic_setup, %esi            # IRQ 0 at vector 0x20; all others masked
    mov $((pic_setup_end - pic_setup) / 2), %ecx
    xor %edx, %edx
1:  lodsw
    mov %al, %dl
    mov %ah, %al
    out %al, %dx
    loop 1b
    mov $serial_setup, %esi         # 115200 baud, 8N1, FIFOs, no interrupts
    mov $7, %ecx
1:  lodsw
    movzbl %al, %edx
    add $COM1, %edx
    mov %ah, %al
    out %al, %dx
    loop 1b

    mov $start_text, %esi
    call puts
    mov $PATTERN, %edi
    xor %eax, %eax
    mov $1024, %ecx
1:  stosl
    add $0x9e3779b1, %eax
    loop 1b

    mov $0x34, %al                  # channel 0, both bytes, rate generator
    out %al, $PIT_MODE
    mov $(DIVISOR & 0xff), %al
    out %al, $PIT_CH0
    mov $(DIVISOR >> 8), %al
    out %al, $PIT_CH0
    sti

    WORK                            # sum in %edi

    mov $sum_text, %esi
    call puts
    mov %edi, %eax
    call puthex
    mov $done_text, %esi
    call puts
power_off:
    mov $PM1A_CNT, %edx
    mov $0x2000, %eax               # SLP_EN
    out %ax, %dx
    movb $0x34, SLEEP_CTL           # SLP_TYP 5, SLP_EN
1:  hlt
    jmp 1b

tick:
    push %eax
    incl ticks
    mov $0x20, %al                  # end of interrupt
    out %al, $PIC1
    pop %eax
    iret

unexpected:
    mov $unexpected_text, %esi
    call puts
    pop %eax
    call puthex
    jmp power_off

# An interrupt gate at %edi to %eax; clobbers %edx.
set_gate:
    mov %eax, %edx
    mov %ax, (%edi)
    movw $8, 2(%edi)
    mov $0x8e00, %dx
    mov %edx, 4(%edi)
    ret

# Prints %al. Clobbers %edx.
putc:
    push %eax
    mov $(COM1 + 5), %edx
1:  in %dx, %al
    test $0x20, %al                 # transmitter holding register empty
    jz 1b
    pop %eax
    mov $COM1, %edx
    out %al, %dx
    ret

# Prints the NUL-terminated string at %esi.
puts:
    lodsb
    test %al, %al
    jz 1f
    call putc
    jmp puts
1:  ret

# Prints %eax as 8 hexadecimal digits.
puthex:
    mov $8, %ecx
1:  rol $4, %eax
    push %eax
    and $15, %eax
    mov digits(%eax), %al
    call putc
    pop %eax
    loop 1b
    ret

    .data
pic_setup:                          # port, value
    .byte 0x20, 0x11, 0xa0, 0x11, 0x21, 0x20, 0xa1, 0x28, 0x21, 4, 0xa1, 2
    .byte 0x21, 1, 0xa1, 1, 0x21, 0xfe, 0xa1, 0xff
pic_setup_end:
serial_setup:                       # register, value
    .byte 3, 0x80, 0, 1, 1, 0, 3, 3, 2, 7, 4, 0x0b, 1, 0
digits:          .ascii "0123456789abcdef"
    .include "../texts.inc.S"
    .balign 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff        # code
    .quad 0x00cf93000000ffff        # data
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long gdt
idt_pointer:
    .word 48 * 8 - 1
    .long IDT

    .bss
    .balign 16
ticks:  .skip 16
        .skip 4096
stack_top:
