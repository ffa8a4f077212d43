# Boots the C of lines.c as a guest.
    .macro NAME
    .ascii "LINES"
    .endm
    .include "common.inc.S"

main:
    jmp compute
