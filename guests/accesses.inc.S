/* A table in the image of what instructions access, made beside them. ACCESS before an
 * instruction says: it accesses SIZE bytes from what register REG holds before it, plus
 * DISPLACEMENT. KIND is READ, WRITE or both; with COUNTED only while the count register of
 * string instructions is not 0. UNIT is the bytes of each access QEMU makes of it, 0 where
 * these differ. Several may stand before one instruction.
 *
 * An entry of 24 bytes, in the guest's byte order: address (8), register's name (8),
 * displacement (2), size (2), kind (1), unit (1), 0. The table begins with TABLE_MARK and
 * ends with an address of 0. */
    .equ READ, 1
    .equ WRITE, 2
    .equ COUNTED, 4

    .macro ACCESS reg, displacement, size, kind, unit
.Lcase\@:
    .pushsection .data, 1
    .quad .Lcase\@
    .ascii "\reg"
    .balign 8
    .short \displacement, \size
    .byte \kind, \unit
    .balign 8
    .popsection
    .endm

    .data 1
    .balign 8
    .ascii "WIDE-ACCESSES-ARE"          /* TABLE_MARK, 24 bytes */
    .balign 8
    .data 2
    .quad 0
    .data 0
    .text
