# Instructions that access 1 to 40 bytes at once or in parts, at every place around a page
# border whose pages lie apart in RAM. What each accesses is in a table (../accesses.inc.S).
# Wants `-cpu max`, for AVX.

    .equ BORDER, WINDOW + 0x1000
    .equ LOW_FRAME, SCRATCH + 0x5000
    .equ HIGH_FRAME, SCRATCH + 0x1000
    .equ FARTHEST, 40                   # bytes before the border where the first round is

    .macro NAME
    .ascii "WIDE"
    .endm
    .include "common.inc.S"
    .include "../accesses.inc.S"

# Other bytes to store in %r12, %xmm0 and %ymm1.
    .macro FRESH
    add %r13, %r12
    .endm
    .macro FRESH_VECTOR
    add %r13, %r12
    movq %r12, %xmm0
    add %r13, %r12
    movq %r12, %xmm1
    punpcklqdq %xmm1, %xmm0
    vinsertf128 $1, %xmm0, %ymm0, %ymm1
    .endm

main:
    movq $(LOW_FRAME + 7), window_pt
    movq $(HIGH_FRAME + 7), window_pt + 8
    mov %cr4, %rax
    or $0x40000, %eax                   # OSXSAVE
    mov %rax, %cr4
    xor %ecx, %ecx
    xor %edx, %edx
    mov $7, %eax                        # x87, SSE, AVX
    xsetbv
    fninit
    mov $0x9e3779b97f4a7c15, %r13
    mov $0x0123456789abcdef, %r12
    xor %ebx, %ebx
    mov $BORDER - FARTHEST, %r8d
round:
    call plain
    call vectors
    call strings
    call stacks
    call descriptors
    test $15, %r8b
    jnz 1f
    call aligned
1:  call fold
    inc %r8
    cmp $BORDER + 2, %r8
    jne round
    mov %rbx, %rax
    ret

plain:
    .irp name, %r12b, %r12w, %r12d, %r12
    FRESH
    .ifc \name, %r12b
    .set bytes, 1
    .endif
    .ifc \name, %r12w
    .set bytes, 2
    .endif
    .ifc \name, %r12d
    .set bytes, 4
    .endif
    .ifc \name, %r12
    .set bytes, 8
    .endif
    ACCESS r8, 0, bytes, WRITE, bytes
    mov \name, (%r8)
    ACCESS r8, 3, bytes, READ|WRITE, bytes
    add \name, 3(%r8)
    ACCESS r8, 1, bytes, READ|WRITE, bytes
    lock xadd \name, 1(%r8)
    ACCESS r8, 2, bytes, READ, bytes
    cmp \name, 2(%r8)
    .endr
    FRESH
    ACCESS r8, 0, 4, WRITE, 4
    movbe %r12d, (%r8)
    ACCESS r8, 5, 8, WRITE, 8
    movbe %r12, 5(%r8)
    ACCESS r8, 5, 8, READ, 8
    movbe 5(%r8), %rax
    ret

vectors:
    FRESH_VECTOR
    ACCESS r8, 0, 16, WRITE, 16
    movups %xmm0, (%r8)
    ACCESS r8, 5, 16, READ, 16
    movdqu 5(%r8), %xmm2
    ACCESS r8, 8, 8, WRITE, 8
    movhps %xmm0, 8(%r8)
    ACCESS r8, 4, 8, WRITE, 8
    movlps %xmm0, 4(%r8)
    ACCESS r8, 4, 4, WRITE, 4
    movss %xmm0, 4(%r8)
    FRESH_VECTOR
    ACCESS r8, 0, 32, WRITE, 16
    vmovups %ymm1, (%r8)
    ACCESS r8, 1, 32, READ, 16
    vmovups 1(%r8), %ymm2
    vzeroupper
    fldpi
    ACCESS r8, 7, 8, WRITE, 8
    fstpl 7(%r8)
    ret

strings:
    FRESH
    mov %r12, %rax
    mov %r8d, %edi
    mov $3, %ecx
    ACCESS rdi, 0, 8, WRITE|COUNTED, 8
    rep stosq
    mov %r8d, %esi
    lea 9(%r8), %edi
    mov $3, %ecx
    ACCESS rsi, 0, 4, READ|COUNTED, 4
    ACCESS rdi, 0, 4, WRITE|COUNTED, 4
    rep movsl
    mov %r8d, %esi
    lea 1(%r8), %edi
    ACCESS rsi, 0, 8, READ, 8
    ACCESS rdi, 0, 8, READ, 8
    cmpsq
    ACCESS rsi, 0, 2, READ, 2
    lodsw
    ret

# With the stack at the border, and no interrupt that could be taken on it.
stacks:
    mov %rsp, %rbp
    lea 24(%r8), %rsp
    FRESH
    ACCESS rsp, -8, 8, WRITE, 8
    push %r12
    ACCESS rsp, -2, 2, WRITE, 2
    pushw %r12w
    ACCESS rsp, 0, 2, READ, 2
    ACCESS r8, 1, 2, WRITE, 2
    popw 1(%r8)
    ACCESS r8, 3, 8, READ, 8
    ACCESS rsp, -8, 8, WRITE, 8
    push 3(%r8)
    ACCESS rsp, 0, 8, READ, 8
    pop %rax
    ACCESS rsp, -8, 8, WRITE, 8
    call 1f
1:  ACCESS rsp, 0, 8, READ, 8
    pop %rax
    ACCESS rsp, -8, 8, WRITE, 8
    pushf
    ACCESS rsp, 0, 8, READ, 8
    popf
    mov %rsp, %rdx
    lea 1f(%rip), %rax
    movl $KDATA, %ecx
    lea 40(%r8), %rsp
    ACCESS rsp, -8, 8, WRITE, 8
    push %rcx
    ACCESS rsp, -8, 8, WRITE, 8
    push %rdx
    ACCESS rsp, -8, 8, WRITE, 8
    pushf
    ACCESS rsp, -8, 8, WRITE, 8
    push $KCODE
    ACCESS rsp, -8, 8, WRITE, 8
    push %rax
    ACCESS rsp, 0, 40, READ, 8
    iretq
1:  mov %rbp, %rsp
    ret

descriptors:
    ACCESS r8, 0, 10, WRITE, 0
    sgdt (%r8)
    ACCESS r8, 0, 10, READ, 0
    lgdt (%r8)
    ACCESS r8, 11, 10, WRITE, 0
    sidt 11(%r8)
    ACCESS r8, 11, 10, READ, 0
    lidt 11(%r8)
    ACCESS r8, 0, 4, WRITE, 4
    mov %r12d, (%r8)
    ACCESS r8, 4, 2, WRITE, 2
    movw $0, 4(%r8)
    ACCESS r8, 0, 6, READ, 0
    lfs (%r8), %eax
    ret

# Also what QEMU gets wrong across a page border (docs/quirks.md, x87 and fxsave).
aligned:
    fldpi
    ACCESS r8, 0, 10, WRITE, 0
    fstpt (%r8)
    ACCESS r8, 0, 10, READ, 0
    fldt (%r8)
    fstp %st(0)
    FRESH_VECTOR
    ACCESS r8, 0, 16, WRITE, 16
    movaps %xmm0, (%r8)
    ACCESS r8, 0, 16, READ|WRITE, 16
    lock cmpxchg16b (%r8)
    mov %rbx, %r9
    ACCESS r8, 0, 16, READ|WRITE, 16
    lock cmpxchg16b (%r8)
    mov %r9, %rbx
    ret

# What was stored, into the sum.
fold:
    mov $4, %edx
    mov %r8, %rsi
1:  ACCESS rsi, 0, 8, READ, 8
    mov (%rsi), %rax
    MIX %rax
    add $8, %rsi
    dec %edx
    jnz 1b
    ret
