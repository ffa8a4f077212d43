# The tiny guest of ../mipsel, in the 64-bit ELF that QEMU wants for 64-bit boards.
    .include "../mipsel/tiny.S"
