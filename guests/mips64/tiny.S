# The tiny guest of ../mips, in the 64-bit ELF that QEMU wants for 64-bit boards.
    .include "../mips/tiny.S"
