# Several processors at once: all that makes the order of their instructions matter.
#
# The first starts the others by INIT and SIPI. Each has the timer of its own local APIC, with a
# period of its own, and goes through these phases, a barrier between any two:
#   counting   ROUNDS times a lock cmpxchg on one counter, and an increment of another without
#              lock, which loses some: how many are left is printed as SMP-RACE
#   locking    ROUNDS times a spin lock around a third counter
#   calling    CALLS interrupts by each to all others, every one awaited
#   NMIs       NMIS broadcasts by the first
#   patching   PATCHES times the first changes an instruction that the others run until they see it
#   mapping    MAPPINGS times the first maps a page elsewhere and has the others forget the old one
#   halting    WAKES times the others halt until an interrupt of the first wakes them
# The checksum depends on the number of processors only, which fw_cfg tells.

    .equ ROUNDS,   20000
    .equ CALLS,    50
    .equ NMIS,     20
    .equ PATCHES,  100
    .equ MAPPINGS, 50
    .equ WAKES,    20

    .equ APIC,          0xfee00000
    .equ EOI,           0x0b0
    .equ SPURIOUS,      0x0f0
    .equ COMMAND,       0x300
    .equ LVT_TIMER,     0x320
    .equ INITIAL_COUNT, 0x380
    .equ DIVIDE,        0x3e0

    # Commands to all processors but the one that gives them.
    .equ SEND_INIT, 0xc4500
    .equ SEND_SIPI, 0xc4600 + (START >> 12)
    .equ SEND_NMI,  0xc4400
    .equ SEND_WAKE, 0xc4040     # not counted: two in a row may arrive as one
    .equ SEND_CALL, 0xc4041
    .equ SEND_DROP, 0xc4042

    .equ START,     0x8000      # where the others begin, in real mode
    .equ WATCHED,   WINDOW + 0x1000
    .equ watched_pt, window_pt + 8
    .equ FW_CFG,    0x510
    .equ FW_CPUS,   5

    .macro NAME
    .ascii "SMP"
    .endm
    .include "common.inc.S"

    .macro APIC_SET register, value
    movl $\value, WINDOW + \register
    .endm

    # Waits until a counter has reached a register.
    .macro AWAIT counter, value
1:  pause
    cmp \value, \counter(%rip)
    jb 1b
    .endm

    .macro ACQUIRE
1:  mov $1, %al
    xchg %al, lock(%rip)
    test %al, %al
    jz 3f
2:  pause
    cmpb $0, lock(%rip)
    jne 2b
    jmp 1b
3:
    .endm

    .macro RELEASE
    movb $0, lock(%rip)
    .endm

# The others begin here, in real mode, and go to long mode at once.
    .code16
start16:
    cli
    xor %ax, %ax
    mov %ax, %ds
    lgdtl START + (start_gdt - start16)
    mov $0x620, %eax
    mov %eax, %cr4
    mov $pml4, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx
    mov $0x101, %eax
    xor %edx, %edx
    wrmsr
    mov $0x80010033, %eax
    mov %eax, %cr0
    ljmpl $KCODE, $other64
start_gdt:
    .word 63
    .long gdt
start16_end:

    .code64
other64:
    mov $KDATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $1, %ebp
    lock xadd %rbp, begun(%rip) # %rbp: which processor this is
    mov %ebp, %eax
    shl $12, %eax
    lea stacks(%rax), %rsp
    lidt idt_pointer(%rip)
    call work_all
1:  cli
    hlt
    jmp 1b

main:
    mov $(APIC + 0x13), %eax
    mov %rax, window_pt
    movq $(SCRATCH + 3), watched_pt
    GATE 2, nmi
    GATE 0x40, timer
    GATE 0x41, called
    GATE 0x42, drop
    mov $FW_CPUS, %eax
    mov $FW_CFG, %edx
    out %ax, %dx
    inc %edx
    in %dx, %al                 # little-endian, and never more than 255 here
    movzbl %al, %eax
    mov %rax, processors(%rip)

    lea start16(%rip), %rsi
    mov $START, %edi
    mov $(start16_end - start16), %ecx
    rep movsb
    xor %ebp, %ebp
    incq begun(%rip)
    APIC_SET SPURIOUS, 0x1ff
    APIC_SET COMMAND, SEND_INIT
    APIC_SET COMMAND, SEND_SIPI
    mov processors(%rip), %rax
    AWAIT begun, %rax
    call work_all

    lea race(%rip), %rsi
    call puts
    mov racy(%rip), %rax
    call puthex
    mov $'\n', %al
    call putc
    xor %ebx, %ebx
    MIX counted(%rip)
    MIX guarded(%rip)
    MIX answered(%rip)
    MIX nmis(%rip)
    MIX seen(%rip)
    MIX dropped(%rip)
    MIX woken(%rip)
    mov %rbx, %rax
    ret

barrier:
    add processors(%rip), %r15
    lock incq arrived(%rip)
    AWAIT arrived, %r15
    ret

# All phases, on every processor; %rbp is its number.
work_all:
    xor %r15d, %r15d
    mov processors(%rip), %r14
    dec %r14                    # the others
    APIC_SET SPURIOUS, 0x1ff
    APIC_SET DIVIDE, 3
    APIC_SET LVT_TIMER, 0x20040
    imul $700, %ebp, %eax
    add $5000, %eax
    mov %eax, WINDOW + INITIAL_COUNT
    sti
    call barrier

    mov $ROUNDS, %ecx
counting:
    mov counted(%rip), %rax
1:  lea 1(%rax), %rdx
    lock cmpxchg %rdx, counted(%rip)
    jne 1b
    mov racy(%rip), %rax
    inc %rax
    mov %rax, racy(%rip)
    dec %ecx
    jnz counting
    call barrier

    mov $ROUNDS, %ecx
locking:
    ACQUIRE
    incq guarded(%rip)
    RELEASE
    dec %ecx
    jnz locking
    call barrier

    mov $CALLS, %ecx
calling:
    ACQUIRE
    movq $0, answers(%rip)
    APIC_SET COMMAND, SEND_CALL
    AWAIT answers, %r14
    RELEASE
    dec %ecx
    jnz calling
    call barrier

    mov $1, %ecx
    test %ebp, %ebp
    jnz 4f
sending_nmis:
    APIC_SET COMMAND, SEND_NMI
    mov %r14, %rax
    imul %rcx, %rax
    AWAIT nmis, %rax
    inc %ecx
    cmp $NMIS, %ecx
    jbe sending_nmis
4:  call barrier

    mov $1, %ecx
    test %ebp, %ebp
    jnz running_patched
patching:
    mov %ecx, patched + 1(%rip)
    mov %r14, %rax
    imul %rcx, %rax
    AWAIT seen, %rax
    inc %ecx
    cmp $PATCHES, %ecx
    jbe patching
    jmp 5f
running_patched:
    call patched
    cmp %ecx, %eax
    jne running_patched
    lock incq seen(%rip)
    inc %ecx
    cmp $PATCHES, %ecx
    jbe running_patched
5:  call barrier

    mov $1, %ecx
    test %ebp, %ebp
    jnz reading
mapping:
    mov %ecx, %eax
    and $1, %eax
    shl $12, %eax
    add $SCRATCH, %eax
    mov %rcx, (%rax)
    or $3, %eax
    mov %rax, watched_pt
    invlpg WATCHED
    movq $0, answers(%rip)
    APIC_SET COMMAND, SEND_DROP
    AWAIT answers, %r14
    mov %rcx, mapped(%rip)
    inc %ecx
    cmp $MAPPINGS, %ecx
    jbe mapping
    jmp 6f
reading:
    mov mapped(%rip), %rax
    cmp %rax, WATCHED           # never older than what all have been told of
    jb stale
    cmp $MAPPINGS, %rax
    jb reading
6:  call barrier

    APIC_SET LVT_TIMER, 0x10000
    mov $1, %ecx
    test %ebp, %ebp
    jnz halting
waking:
    mov %rcx, wake(%rip)
    APIC_SET COMMAND, SEND_WAKE
    mov %r14, %rax
    imul %rcx, %rax
    AWAIT woken, %rax
    inc %ecx
    cmp $WAKES, %ecx
    jbe waking
    jmp 8f
halting:
    cli
    cmp %rcx, wake(%rip)
    jae 7f
    sti
    hlt
    jmp halting
7:  sti
    lock incq woken(%rip)
    inc %ecx
    cmp $WAKES, %ecx
    jbe halting
8:  call barrier
    cli
    ret

stale:
    ud2

patched:
    mov $0, %eax
    ret

timer:
    lock incq ticks(%rip)
    APIC_SET EOI, 0
    iretq

nmi:
    lock incq nmis(%rip)
    iretq

called:
    lock incq answers(%rip)
    lock incq answered(%rip)
    APIC_SET EOI, 0
    iretq

drop:
    invlpg WATCHED
    lock incq answers(%rip)
    lock incq dropped(%rip)
    APIC_SET EOI, 0
    iretq

    .data
race:
    .asciz "SMP-RACE "

    .bss
    .balign 4096
    .skip 4096
stacks:                         # each ends 4096 bytes behind the one before
    .skip 65536
processors: .skip 8
begun:      .skip 8
arrived:    .skip 8
    .globl counted, racy, guarded
counted:    .skip 8
racy:       .skip 8
guarded:    .skip 8
answers:    .skip 8
answered:   .skip 8
nmis:       .skip 8
seen:       .skip 8
mapped:     .skip 8
dropped:    .skip 8
wake:       .skip 8
woken:      .skip 8
lock:       .skip 8
    .text
