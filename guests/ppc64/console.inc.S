# The first terminal of a pseries, by hypercalls.

# Prints the NUL-terminated string at r3.
puts:
    mflr 31
    addi 30, 3, -1
1:  lbzu 3, 1(30)
    cmpwi 3, 0
    beq 2f
    bl putc
    b 1b
2:  mtlr 31
    blr

# Prints the low word of r3 as 8 hexadecimal digits.
puthex:
    mflr 31
    mr 30, 3
    li 29, 8
1:  rlwinm 30, 30, 4, 0, 31
    andi. 3, 30, 15
    addi 3, 3, '0'
    cmpwi 3, '9'
    ble 2f
    addi 3, 3, 'a' - '0' - 10
2:  bl putc
    addic. 29, 29, -1
    bne 1b
    mtlr 31
    blr

# Prints r3 on the first terminal, trying until it is taken.
putc:
    sldi 28, 3, 56
1:  li 3, H_PUT_TERM_CHAR
    li 4, 0
    li 5, 1
    mr 6, 28
    sc 1
    cmpdi 3, 0
    bne 1b
    blr
