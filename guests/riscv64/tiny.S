# The tiny guest in 64 bits.
    .include "words.inc.S"
    .include "tiny.inc.S"
    .include "common.inc.S"
