// The PL011 of `-M virt` at UART.

// Prints the NUL-terminated string at x0.
puts:
    ldr x3, =UART
1:  ldrb w1, [x0], #1
    cbz w1, 3f
2:  ldr w2, [x3, #0x18]
    tbnz w2, #5, 2b                 // transmit FIFO full
    str w1, [x3]
    b 1b
3:  ret

// Prints w0 as 8 hexadecimal digits.
puthex:
    ldr x3, =UART
    mov w4, #8
1:  ror w0, w0, #28
    and w1, w0, #15
    add w1, w1, #'0'
    cmp w1, #'9'
    b.ls 2f
    add w1, w1, #('a' - '0' - 10)
2:  ldr w2, [x3, #0x18]
    tbnz w2, #5, 2b
    str w1, [x3]
    subs w4, w4, #1
    b.ne 1b
    ret
