# The tiny guest in 32 bits.
    .include "words.inc.S"
    .include "../riscv64/tiny.inc.S"
    .include "../riscv64/common.inc.S"
