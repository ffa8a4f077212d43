# One page of code mapped at three addresses, called at each in turn, with timer interrupts
# in between: QEMU translates it once and runs that at all of them. With paging from there on.

    .equ ROUNDS,    3000
    .equ DIRECTORY, 0x500000
    .equ TABLE,     0x501000
    .equ WINDOW,    0x40000000
    .equ FIRST,     WINDOW + 0x3000
    .equ SECOND,    WINDOW + 0x8000

    .macro NAME
    .ascii "ALIASES"
    .endm

    .macro WORK
    mov $DIRECTORY, %edi
    movl $0x83, (%edi)              # one to one, in large pages: the first 8 MB, and microvm's power-off
    movl $0x400083, 4(%edi)
    movl $((SLEEP_CTL & 0xffc00000) + 0x83), 4 * (SLEEP_CTL >> 22)(%edi)
    movl $(TABLE + 3), 4 * (WINDOW >> 22)(%edi)
    mov $(shared + 3), %eax
    mov %eax, TABLE + 4 * 3
    mov %eax, TABLE + 4 * 8
    mov %edi, %cr3
    mov %cr4, %eax
    or $0x10, %eax                  # PSE
    mov %eax, %cr4
    mov %cr0, %eax
    or $0x80000000, %eax            # PG
    mov %eax, %cr0
    mov $0x1234567, %ebx
    xor %edi, %edi
    mov $ROUNDS, %ebp
round:
    imul $1664525, %ebx, %ebx
    add $1013904223, %ebx
    mov $shared, %esi
    call *%esi
    mov $FIRST, %esi
    test $0x10000, %ebx             # at times one of the three is left out
    jz 1f
    call *%esi
1:  mov $SECOND, %esi
    call *%esi
    dec %ebp
    jnz round
    .endm

    .include "common.inc.S"

# The sum in %edi becomes itself rotated left by 7, plus \value.
    .macro MIX value
    rol $7, %edi
    add \value, %edi
    .endm

# Mixes %ebx and the address it runs at into %edi, in a few blocks.
    .text
    .balign 4096
    .globl shared, shared_loop
shared:
    MIX %esi
    mov $4, %ecx
shared_loop:
    MIX %ebx
    dec %ecx
    jnz shared_loop
    test $0x20000, %ebx
    jnz 1f
    inc %edi
1:  ret

    .bss
    .balign 4096                    # nothing that is written lies in its page
