# The guest of exceptions in 32 bits.
    .include "words.inc.S"
    .include "../riscv64/faults.inc.S"
    .include "../riscv64/common.inc.S"
