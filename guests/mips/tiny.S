# The tiny guest for the big-endian `-M malta`, of 32 or 64 bits.
    .equ BIG, 1
    .include "../mipsel/tiny.S"
