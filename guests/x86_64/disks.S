# Disks that are never idle: eight requests at a time on a virtio disk, one on a CD drive.
#
# Each slot hands in its next request as soon as it sees the one before done; meanwhile the
# guest computes and stores, under a timer. Completions are polled for, so that the disk
# tells nothing by interrupts, in no order that the sum depends on. A disk that may be written is
# written, too: what was read is put into its second half.
#
# The disk is legacy virtio through I/O ports (Virtio 1.2, 4.1.4.8), its ring at a physical
# page; the drive is ATAPI with bus master DMA, on the second IDE channel.

    .equ SLOTS,     8
    .equ ROUNDS,    150         # requests of a slot
    .equ CD_ROUNDS, 60
    .equ SECTORS,   2           # of a request
    .equ CD_BLOCK,  2048

    .equ RING,      SCRATCH             # descriptors, then available, at a page border used
    .equ HEADERS,   SCRATCH + 0x8000    # 16 bytes a slot; the status byte is 256 behind
    .equ PRD,       SCRATCH + 0x9000
    .equ BUFFERS,   SCRATCH + 0x10000   # a page a slot
    .equ CD_BUFFER, SCRATCH + 0x20000
    .equ WORK,      SCRATCH + 0x30000   # 64 KB that the waiting guest stores to

    .equ CD_DATA,   0x170
    .equ CD_STATUS, 0x177

    .macro NAME
    .ascii "DISKS"
    .endm
    .include "common.inc.S"

main:
    GATE 0x20, tick
    START_TIMER 1193
    xor %ebx, %ebx              # the sum
    mov $0x10011af4, %r8d       # virtio disk, transitional
    call find_device
    mov %r9d, %r14d
    mov $0x10, %r10d
    call read_config
    and $~3, %eax
    mov %eax, %r15d             # its I/O ports
    mov $0x70108086, %r8d       # PIIX3 IDE
    call find_device
    mov $0x20, %r10d
    call read_config
    and $~3, %eax
    add $8, %eax                # the second channel's
    mov %eax, bus_master(%rip)
    call init_disk
    xor %edi, %edi
1:  call submit
    inc %edi
    cmp $SLOTS, %edi
    jne 1b
    call submit_cd

wait:
    call work
    call poll_disk
    call poll_cd
    cmpl $SLOTS + 1, finished(%rip)
    jne wait
    STOP_TIMER
    mov %rbx, %rax
    ret

# Finds the device with vendor and device id %r8d on bus 0, lets it use ports and memory; its
# configuration address in %r9d.
find_device:
    mov $0x80000000, %r9d
1:  xor %r10d, %r10d
    call read_config
    cmp %r8d, %eax
    je 2f
    add $0x100, %r9d
    jmp 1b
2:  mov $4, %r10d
    call read_config
    or $5, %eax
    mov $0xcfc, %edx
    out %eax, %dx
    ret

# Register %r10d of the device at %r9d in %eax.
read_config:
    lea (%r9, %r10), %eax
    mov $0xcf8, %edx
    out %eax, %dx
    mov $0xcfc, %edx
    in %dx, %eax
    ret

init_disk:
    mov $RING, %edi             # RAM may hold what ran before
    mov $0x4000 / 8, %ecx
    xor %eax, %eax
    rep stosq
    lea 18(%r15), %edx          # device status
    xor %eax, %eax
    out %al, %dx
    mov $3, %al                 # a driver knows it
    out %al, %dx
    mov %r15d, %edx
    in %dx, %eax
    shr $5, %eax                # VIRTIO_BLK_F_RO
    and $1, %eax
    mov %eax, is_read_only(%rip)
    lea 4(%r15), %edx           # no features
    xor %eax, %eax
    out %eax, %dx
    lea 14(%r15), %edx          # queue 0
    out %ax, %dx
    lea 12(%r15), %edx
    in %dx, %ax
    movzwl %ax, %eax
    mov %eax, ring_size(%rip)
    mov %eax, %ecx
    shl $4, %ecx
    add $RING, %ecx
    mov %ecx, available(%rip)
    lea 4102(%rcx, %rax, 2), %ecx
    and $~4095, %ecx
    mov %ecx, used(%rip)
    lea 8(%r15), %edx
    mov $RING >> 12, %eax
    out %eax, %dx
    lea 18(%r15), %edx
    mov $7, %al
    out %al, %dx
    lea 20(%r15), %edx          # the capacity in sectors
    in %dx, %eax
    shr $1, %eax
    mov %eax, half(%rip)
    mov available(%rip), %ecx
    movw $1, (%rcx)             # no interrupts, please
    ret

# Hands in the next request of slot %edi. Clobbers all but %rbx, %rdi, %r14, %r15.
submit:
    mov rounds(, %rdi, 4), %eax
    lea (%rax, %rax, 2), %ecx   # which sectors
    lea (%rcx, %rdi, 4), %eax
    xor %edx, %edx
    mov half(%rip), %ecx
    sub $SECTORS - 1, %ecx
    div %ecx
    xor %r8d, %r8d              # read
    testl $3, rounds(, %rdi, 4)
    jnz 1f
    cmpl $0, is_read_only(%rip)
    jne 1f
    mov $1, %r8d                # write
    add half(%rip), %edx
1:  mov %edi, %esi              # header
    shl $4, %esi
    add $HEADERS, %esi
    mov %r8d, (%rsi)
    movl $0, 4(%rsi)
    mov %rdx, 8(%rsi)
    movb $0xff, 256(%rsi)

    lea (%rdi, %rdi, 2), %ecx   # three descriptors
    mov %ecx, %r9d
    shl $4, %ecx
    add $RING, %ecx
    mov %rsi, (%rcx)
    movl $16, 8(%rcx)
    movw $1, 12(%rcx)           # NEXT
    lea 1(%r9), %eax
    mov %ax, 14(%rcx)
    mov %edi, %eax
    shl $12, %eax
    add $BUFFERS, %eax
    mov %rax, 16(%rcx)
    movl $SECTORS * 512, 24(%rcx)
    mov $3, %eax                # NEXT, and WRITE where the device writes
    test %r8d, %r8d
    jz 2f
    mov $1, %eax
2:  mov %ax, 28(%rcx)
    lea 2(%r9), %eax
    mov %ax, 30(%rcx)
    add $256, %rsi
    mov %rsi, 32(%rcx)
    movl $1, 40(%rcx)
    movl $2, 44(%rcx)           # WRITE

    mov available(%rip), %ecx
    movzwl 2(%rcx), %eax
    mov ring_size(%rip), %edx
    dec %edx
    and %eax, %edx
    mov %r9w, 4(%rcx, %rdx, 2)
    inc %eax
    mfence
    mov %ax, 2(%rcx)
    mfence
    lea 16(%r15), %edx
    xor %eax, %eax
    out %ax, %dx
    ret

# Takes what the disk has done, and hands in the next ones.
poll_disk:
    mov used(%rip), %ecx
    mov seen(%rip), %eax
    cmp %ax, 2(%rcx)
    je 3f
    mov ring_size(%rip), %edx
    dec %edx
    and %eax, %edx
    incl seen(%rip)
    mov 4(%rcx, %rdx, 8), %eax  # the first descriptor
    xor %edx, %edx
    mov $3, %ecx
    div %ecx
    mov %eax, %edi
    mov %edi, %esi
    shl $4, %esi
    cmpb $0, HEADERS + 256(%rsi)
    jne unexpected
    cmpl $0, HEADERS(%rsi)
    jne 1f
    shl $8, %esi
    add $BUFFERS, %esi
    mov $SECTORS * 64, %ecx
    call sum_up
1:  incl rounds(, %rdi, 4)
    cmpl $ROUNDS, rounds(, %rdi, 4)
    je 2f
    call submit
    jmp poll_disk
2:  incl finished(%rip)
    jmp poll_disk
3:  ret

# Adds %ecx words at %rsi to the sum.
sum_up:
1:  add (%rsi), %rbx
    add $8, %rsi
    dec %ecx
    jnz 1b
    ret

# Has the drive read the next block.
submit_cd:
    movl $CD_BUFFER, PRD
    movl $0x80000000 + CD_BLOCK, PRD + 4
    mov bus_master(%rip), %edx
    mov $8, %al                 # to memory
    out %al, %dx
    add $4, %edx
    mov $PRD, %eax
    out %eax, %dx
    mov $CD_DATA + 6, %edx
    mov $0xa0, %al
    out %al, %dx
    mov $CD_DATA + 1, %edx
    mov $1, %al                 # DMA
    out %al, %dx
    mov $CD_DATA + 4, %edx
    xor %eax, %eax
    out %al, %dx
    inc %edx
    mov $CD_BLOCK >> 8, %al
    out %al, %dx
    mov $CD_STATUS, %edx
    mov $0xa0, %al              # PACKET
    out %al, %dx
1:  in %dx, %al
    and $0x88, %al
    cmp $8, %al                 # DRQ and not BSY
    jne 1b
    mov cd_round(%rip), %eax
    and $1, %al
    mov %al, packet + 5
    lea packet(%rip), %rsi
    mov $CD_DATA, %edx
    mov $6, %ecx
    rep outsw
    mov bus_master(%rip), %edx
    add $2, %edx
    mov $6, %al                 # forget interrupt and error
    out %al, %dx
    sub $2, %edx
    mov $9, %al                 # start
    out %al, %dx
    ret

# Takes the block that the drive has read, and has the next one read.
poll_cd:
    cmpl $CD_ROUNDS, cd_round(%rip)
    je 3f
    mov bus_master(%rip), %edx
    add $2, %edx
    in %dx, %al
    test $4, %al
    jz 3f
    sub $2, %edx
    xor %eax, %eax
    out %al, %dx
    mov $CD_STATUS, %edx
    in %dx, %al
    test $1, %al                # the medium is new to it: again
    jnz 2f
    mov $CD_BUFFER, %esi
    mov $CD_BLOCK / 8, %ecx
    call sum_up
    incl cd_round(%rip)
    cmpl $CD_ROUNDS, cd_round(%rip)
    jne 2f
    incl finished(%rip)
    ret
2:  jmp submit_cd
3:  ret

# What the guest does while it waits.
work:
    mov $200, %ecx
    mov random(%rip), %rdx
1:  XORSHIFT %rdx
    movzwl %dx, %esi
    mov %rdx, WORK(%rsi)
    dec %ecx
    jnz 1b
    mov %rdx, random(%rip)
    ret

    .data
    .balign 8
random:       .quad 1
packet:       .byte 0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0    # READ(10), one block
    .balign 4
bus_master:   .long 0
is_read_only: .long 0
ring_size:    .long 0
available:    .long 0
used:         .long 0
half:         .long 0
seen:         .long 0
finished:     .long 0
cd_round:     .long 0
rounds:       .skip 4 * SLOTS
