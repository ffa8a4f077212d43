# Ring 3 and virtual-8086 mode, left again and again by a software interrupt, by faults with an
# error code and by timer interrupts: what is pushed is 12 to 40 bytes long. Without paging.

    .equ ROUNDS, 6000
    .equ TSS,    0x310000
    .equ KERNEL, 0x580000           # top of the stack for what leaves ring 3
    .equ USER,   0x590000           # top of ring 3's
    .equ VM,     0x7000             # code and stack of virtual-8086 mode
    .equ CALL,   0x2f
    .equ LEAVE,  0x2e

    .macro NAME
    .ascii "FRAMES"
    .endm

    .macro WORK
    cli
    lgdt rings_pointer
    movl $KERNEL, TSS + 4
    movl $16, TSS + 8
    movw $104, TSS + 102            # no I/O map
    mov $0x28, %eax
    ltr %ax
    mov $gates, %esi
1:  lodsl
    mov %eax, %edi
    lodsl
    call set_gate
    lodsl
    mov %al, 5(%edi)
    cmp $gates_end, %esi
    jne 1b
    movl $0xfae88e40, VM            # inc %ax; mov %ax, %gs; cli; jmp to the first
    movw $0xfaeb, VM + 4
    mov $1, %ebx                    # x
    xor %edi, %edi                  # sum

    mov %esp, main_stack
    mov $ROUNDS, %ebp
    push $0x23
    push $USER
    push $0x202
    push $0x1b
    push $user
    iret
virtual:
    mov $ROUNDS, %ebp
    push $0                         # gs, fs, ds, es
    push $0
    push $0
    push $0
    push $(VM >> 4)
    push $0x1000
    push $0x20202
    push $(VM >> 4)
    push $0
    iret
done:
    .endm

    .include "common.inc.S"

    .macro ADVANCE                  # x, and its way into the sum
    imul $1664525, %ebx, %ebx
    add $1013904223, %ebx
    rol $7, %edi
    add %ebx, %edi
    .endm

    .text
user:
    mov $0x23, %eax
    mov %eax, %ds
    mov %ebx, USER(, %ebp, 4)
    int $CALL
    cli                             # not in ring 3
    push %ebx
    pop %eax
    dec %ebp
    jnz user
    int $LEAVE

call:
    ADVANCE
    iret

leave:
    mov %cs:main_stack, %esp
    jmp virtual

fault:
    testl $0x20000, 12(%esp)        # VM: below flags, cs and eip is the error code
    jnz 1f
    incl 4(%esp)                    # past the cli
    add $4, %esp
    iret
1:  ADVANCE
    incl 4(%esp)
    add $4, %esp
    dec %ebp
    jz 1f
    iret
1:  mov %cs:main_stack, %esp
    mov $16, %eax
    mov %eax, %ds
    mov %eax, %es
    jmp done

frames_tick:
    push %eax
    push %ds                        # nothing out of virtual-8086 mode
    mov $16, %eax
    mov %eax, %ds
    incl ticks
    mov $0x20, %al
    out %al, $PIC1
    pop %ds
    pop %eax
    iret

    .data
gates:                              # where, to what, of which type
    .long IDT + 8 * 13, fault, 0x8e
    .long IDT + 8 * 0x20, frames_tick, 0x8e
    .long IDT + 8 * CALL, call, 0xef
    .long IDT + 8 * LEAVE, leave, 0xee
gates_end:
main_stack: .long 0
    .balign 8
rings:
    .quad 0
    .quad 0x00cf9b000000ffff        # code and data of ring 0
    .quad 0x00cf93000000ffff
    .quad 0x00cffb000000ffff        # and of ring 3
    .quad 0x00cff3000000ffff
    .quad 0x0000893100000067        # TSS
rings_pointer:
    .word rings_pointer - rings - 1
    .long rings
