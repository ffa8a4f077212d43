# The tiny guest for `-M pseries -bios`, little-endian but for its first instructions.
    .equ LITTLE, 1
    .include "../ppc64/tiny.S"
