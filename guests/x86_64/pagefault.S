# Demand mapping: every access to WINDOW faults once, the handler maps the page and
# the instruction runs again. Faults hit stores, loads, calls, returns, jumps, fetches,
# read-modify-writes, page-crossing accesses and `rep movsb` half way.
#
# Frames are handed out in descending order, so neighbouring pages are not neighbours
# in RAM. The checksum covers the values seen and the exact number of faults.

    .equ ROUNDS, 60
    .equ PAGES, 512
    .equ LAST_FRAME, SCRATCH + (PAGES - 1) * 4096

    .macro NAME
    .ascii "PAGEFAULT"
    .endm
    .include "common.inc.S"

# The physical address of a window page: frames descend as pages ascend.
    .equ FRAME_OF_2,  LAST_FRAME - 2 * 4096
    .equ FRAME_OF_3,  LAST_FRAME - 3 * 4096
    .equ FRAME_OF_10, LAST_FRAME - 10 * 4096
    .equ FRAME_OF_11, LAST_FRAME - 11 * 4096
    .equ FRAME_OF_12, LAST_FRAME - 12 * 4096

main:
    GATE 14, page_fault, ist=1  # calls and returns fault on their own stack
    GATE 0x20, tick
    START_TIMER 1193
    xor %ebx, %ebx
    mov $0x1234567, %r12d
    mov $ROUNDS, %r14d
round:
    call unmap_all
    XORSHIFT %r12
    call data_faults
    call control_faults
    call fetch_faults
    call many_faults
    dec %r14d
    jnz round
    STOP_TIMER
    MIX faults(%rip)
    mov %rbx, %rax
    ret

unmap_all:
    mov $window_pt, %edi
    mov $PAGES, %ecx
    xor %eax, %eax
    rep stosq
    mov %cr3, %rax
    mov %rax, %cr3
    ret

data_faults:
    mov $WINDOW, %r8d
    add $1, %r12
    mov %r12, 0x10(%r8)         # in the middle of a block
    add $3, %r12
    mov %r12, 0x4ffc(%r8)       # crosses two absent pages
    MIX 0x4ffc(%r8)
    lea 1f(%rip), %rsi          # rep movsb from the image through pages 6 and 7
    lea 0x6800(%r8), %rdi
    mov $0x1000, %ecx
    and $~0xfff, %rsi
    rep movsb
1:  MIX 0x6ffc(%r8)
    lock add %r12, 0xd008(%r8)
    xchg %r12, 0xe008(%r8)
    mov 0xd008(%r8), %r12
    movq %r12, %xmm0
    movups %xmm0, 0xfff9(%r8)   # page 15 present, 16 absent or both absent
    MIX 0xfff9(%r8)
    ret

# Instructions that end a block and fault: call, ret, jmp through memory.
control_faults:
    mov %rsp, %rbp
    lea 0x2000(%r8), %rsp
    call 1f                     # the push faults on page 1
1:  pop %rax
    MIX %rax
    lea 2f(%rip), %rax
    mov %rax, FRAME_OF_2 + 0xff8
    lea 0x2ff8(%r8), %rsp
    ret                         # the pop faults on page 2
2:  lea 3f(%rip), %rax
    mov %rax, FRAME_OF_3 + 0x20
    jmp *0x3020(%r8)
3:  mov %rbp, %rsp
    ret

# Code on absent pages, once with an instruction across two of them.
fetch_faults:
    lea sample(%rip), %rsi
    mov $FRAME_OF_10, %edi
    mov $(sample_end - sample), %ecx
    rep movsb
    lea 0xa000(%r8), %rax
    call *%rax
    MIX %rcx
    mov sample(%rip), %al
    mov %al, FRAME_OF_11 + 0xfff
    lea sample + 1(%rip), %rsi
    mov $FRAME_OF_12, %edi
    mov $(sample_end - sample - 1), %ecx
    rep movsb
    lea 0xbfff(%r8), %rax
    call *%rax
    MIX %rcx
    ret
sample:
    mov $0x5a5a, %ecx
    add %r12, %rcx
    ret
sample_end:

# One fault per turn of a tight loop, the store being its first instruction.
many_faults:
    mov $32, %ecx
    mov $WINDOW + 32 * 4096, %r9d
1:  mov %r12, (%r9,%rcx,8)
    add $4096, %r9
    inc %ecx
    cmp $(PAGES - 32), %ecx
    jne 1b
    mov -4104(%r9,%rcx,8), %rax
    MIX %rax
    ret

page_fault:
    push %rax
    push %rcx
    mov %cr2, %rcx
    sub $WINDOW, %rcx
    shr $12, %rcx
    cmp $PAGES, %rcx
    jae 1f
    mov %ecx, %eax
    shl $12, %eax
    neg %eax
    add $(LAST_FRAME + 7), %eax
    mov %rax, window_pt(,%rcx,8)
    incq faults(%rip)
    pop %rcx
    pop %rax
    add $8, %rsp                # error code
    iretq
1:  push $14
    jmp unexpected

    .bss
faults: .skip 8
