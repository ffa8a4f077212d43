# The guest of exceptions in 64 bits.
    .include "words.inc.S"
    .include "faults.inc.S"
    .include "common.inc.S"
