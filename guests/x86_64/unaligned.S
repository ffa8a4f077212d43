# Unaligned and page-crossing accesses of every size, plain, locked and by the stack, over
# virtual pages whose frames are not neighbours; and one frame seen at two addresses.

    .equ ROUNDS, 1500
    .equ BORDER, WINDOW + 0x1000
    .equ LOW_FRAME, SCRATCH + 0x5000
    .equ HIGH_FRAME, SCRATCH + 0x1000

    .macro NAME
    .ascii "UNALIGNED"
    .endm
    .include "common.inc.S"

main:
    GATE 0x20, tick
    START_TIMER 1193
    movq $(LOW_FRAME + 7), window_pt
    movq $(HIGH_FRAME + 7), window_pt + 8
    movq $(LOW_FRAME + 7), window_pt + 16     # the low page again
    xor %ebx, %ebx
    mov $1, %r12d
    mov $ROUNDS, %r14d
round:
    mov $BORDER - 16, %r8d
offset:
    XORSHIFT %r12
    call store_all
    MIX (%r8)
    MIX 8(%r8)
    inc %r8
    cmp $BORDER + 1, %r8
    jne offset
    call fold_frames
    dec %r14d
    jnz round
    STOP_TIMER
    mov %rbx, %rax
    ret

store_all:
    mov %r12, (%r8)
    MIX 1(%r8)
    mov %r12d, 3(%r8)
    MIX (%r8)
    mov %r12w, 1(%r8)
    MIX (%r8)
    movq %r12, %xmm0
    punpcklqdq %xmm0, %xmm0
    movups %xmm0, (%r8)
    MIX 7(%r8)
    lock add %r12, 2(%r8)
    mov %rbx, %rax
    lock xadd %rax, 5(%r8)
    MIX %rax
    xchg %rax, 1(%r8)
    MIX %rax
    mov 4(%r8), %eax
    lock cmpxchg %r12d, 4(%r8)
    mov %rsp, %rbp
    cli                         # no tick on the borrowed stack
    lea 16(%r8), %rsp
    push %r12
    pushw $0x77
    popw %ax
    mov %rbp, %rsp
    sti
    MIX 8(%r8)
    ret

# Through physical addresses and through the alias: the crossing halves landed right.
fold_frames:
    mov $-32, %rcx
1:  MIX LOW_FRAME+0x1000(%rcx)
    MIX WINDOW+0x3000(%rcx)
    MIX HIGH_FRAME+32(%rcx)
    add $8, %rcx
    jnz 1b
    ret
