# Interrupts in the middle of string instructions: every rep form, both directions,
# overlapping, with a timer so fast that each long rep is cut many times.
#
# REP-CUT says how often the timer found a rep with part of its count done; the number
# depends on timing, so it stays out of the checksum.

    .equ ROUNDS, 7
    .equ LENGTH, 0x10000
    .equ SOURCE, SCRATCH
    .equ TARGET, SCRATCH + 0x100000

    .macro NAME
    .ascii "REP"
    .endm
    .include "common.inc.S"

main:
    GATE 0x20, cutting_tick
    START_TIMER 100             # 12 kHz: about 650 instructions at shift=7
    xor %ebx, %ebx
    mov $1, %r12d
    mov $ROUNDS, %r14d
round:
    call fill_source
    call copies
    call overlaps
    call scans
    dec %r14d
    jnz round
    STOP_TIMER
    lea cut_text(%rip), %rsi
    call puts
    mov cuts(%rip), %rax
    call puthex
    mov $'\n', %al
    call putc
    mov %rbx, %rax
    ret

fill_source:
    mov $SOURCE, %edi
    mov $(LENGTH / 8), %ecx
1:  XORSHIFT %r12
    mov %r12, (%rdi)
    add $8, %rdi
    dec %ecx
    jnz 1b
    ret

copies:
    mov $SOURCE, %esi
    mov $TARGET + 1, %edi
    mov $LENGTH, %ecx
    rep movsb
    call fold_target
    mov $SOURCE + 3, %esi       # unaligned words
    mov $TARGET, %edi
    mov $(LENGTH / 8), %ecx
    rep movsq
    call fold_target
    mov %r12b, %al
    mov $TARGET + 16, %edi
    mov $(LENGTH - 32), %ecx
    rep stosb
    call fold_target
    ret

overlaps:
    mov $SOURCE, %esi           # each byte becomes the next one's source
    lea 7(%rsi), %rdi
    mov $(LENGTH / 2), %ecx
    rep movsb
    std
    mov $SOURCE + LENGTH - 8, %esi
    mov $TARGET + LENGTH - 8, %edi
    mov $(LENGTH / 4), %ecx
    rep movsl
    cld
    call fold_target
    ret

scans:
    mov $TARGET, %edi
    mov $LENGTH, %ecx
    mov %r12b, %al
    repne scasb
    MIX %rcx
    mov $SOURCE, %esi
    mov $SOURCE + 7, %edi       # equal as far as the overlapping copy reached
    mov $LENGTH, %ecx
    repe cmpsb
    MIX %rcx
    ret

fold_target:
    mov $TARGET, %esi
    mov $(LENGTH / 8), %ecx
1:  lodsq
    MIX %rax
    dec %ecx
    jnz 1b
    ret

cutting_tick:
    push %rax
    mov 8(%rsp), %rax           # interrupted %rip
    movzbl (%rax), %eax
    and $0xfe, %al
    cmp $0xf2, %al              # a rep prefix
    jne 1f
    test %ecx, %ecx
    jz 1f
    incq cuts(%rip)
1:  END_OF_INTERRUPT
    pop %rax
    iretq

    .data
cut_text: .asciz "REP-CUT "
    .bss
cuts:   .skip 8
