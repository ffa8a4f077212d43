/*
 * gdb's conditions: agent expressions (GDB manual, appendix "The GDB Agent Expression
 * Mechanism"), as src/retrograde/wire/agent.py has them. Operands of `reg` are places in the
 * table of registers.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "probe.h"

#define MAX_OPERATIONS 10000
#define MAX_STACK 256

enum op {
    OP_ADD = 0x02, OP_SUB, OP_MUL, OP_DIV_SIGNED, OP_DIV_UNSIGNED, OP_REM_SIGNED,
    OP_REM_UNSIGNED, OP_LSH, OP_RSH_SIGNED, OP_RSH_UNSIGNED,
    OP_LOG_NOT = 0x0e, OP_BIT_AND, OP_BIT_OR, OP_BIT_XOR, OP_BIT_NOT, OP_EQUAL, OP_LESS_SIGNED,
    OP_LESS_UNSIGNED, OP_EXT, OP_REF8, OP_REF16, OP_REF32, OP_REF64,
    OP_IF_GOTO = 0x20, OP_GOTO, OP_CONST8, OP_CONST16, OP_CONST32, OP_CONST64, OP_REG, OP_END,
    OP_DUP, OP_POP, OP_ZERO_EXT, OP_SWAP,
    OP_PICK = 0x32, OP_ROT,
};

struct machine {
    uint64_t stack[MAX_STACK];
    unsigned depth;
};

static unsigned operand_bytes(uint8_t op)
{
    switch (op) {
    case OP_EXT:
    case OP_ZERO_EXT:
    case OP_CONST8:
    case OP_PICK:
        return 1;
    case OP_IF_GOTO:
    case OP_GOTO:
    case OP_CONST16:
    case OP_REG:
        return 2;
    case OP_CONST32:
        return 4;
    case OP_CONST64:
        return 8;
    }
    return 0;
}

/* How many words an instruction needs on the stack. */
static unsigned needed(uint8_t op, uint64_t operand)
{
    switch (op) {
    case OP_IF_GOTO:
    case OP_END:
    case OP_DUP:
    case OP_POP:
    case OP_EXT:
    case OP_ZERO_EXT:
    case OP_LOG_NOT:
    case OP_BIT_NOT:
    case OP_REF8:
    case OP_REF16:
    case OP_REF32:
    case OP_REF64:
        return 1;
    case OP_PICK:
        return operand + 1;
    case OP_ROT:
        return 3;
    case OP_GOTO:
    case OP_CONST8:
    case OP_CONST16:
    case OP_CONST32:
    case OP_CONST64:
    case OP_REG:
        return 0;
    }
    return 2;
}

/* C's division, which knows no answer for the lowest number by -1. */
static uint64_t divided(int64_t first, int64_t second)
{
    return second == -1 ? -(uint64_t)first : (uint64_t)(first / second);
}

static bool combine(uint8_t op, uint64_t *first, uint64_t second)
{
    int64_t left = *first, right = second;

    switch (op) {
    case OP_ADD: *first += second; return true;
    case OP_SUB: *first -= second; return true;
    case OP_MUL: *first *= second; return true;
    case OP_BIT_AND: *first &= second; return true;
    case OP_BIT_OR: *first |= second; return true;
    case OP_BIT_XOR: *first ^= second; return true;
    case OP_EQUAL: *first = *first == second; return true;
    case OP_LESS_SIGNED: *first = left < right; return true;
    case OP_LESS_UNSIGNED: *first = *first < second; return true;
    case OP_LSH: *first = second < 64 ? *first << second : 0; return true;
    case OP_RSH_UNSIGNED: *first = second < 64 ? *first >> second : 0; return true;
    case OP_RSH_SIGNED: *first = left >> (second < 63 ? second : 63); return true;
    }
    if (!second) {
        return false; /* all others divide */
    }
    switch (op) {
    case OP_DIV_SIGNED: *first = divided(left, right); return true;
    case OP_DIV_UNSIGNED: *first /= second; return true;
    case OP_REM_SIGNED: *first -= divided(left, right) * second; return true;
    case OP_REM_UNSIGNED: *first %= second; return true;
    }
    return false;
}

/* The low `bits` of a word, extended with its sign or with zeros. */
static bool extend(uint64_t *word, uint64_t bits, bool is_signed)
{
    if (bits < 1 || bits > 64) {
        return false;
    }
    *word <<= 64 - bits;
    *word = is_signed ? (uint64_t)((int64_t)*word >> (64 - bits)) : *word >> (64 - bits);
    return true;
}

/* Move or copy words, or change the one on top; there are enough. */
static bool arrange(struct machine *machine, uint8_t op, uint64_t operand)
{
    uint64_t *top = machine->stack + machine->depth - 1, word = *top;
    bool readable;

    switch (op) {
    case OP_DUP: top[1] = word; machine->depth++; return true;
    case OP_PICK: top[1] = top[-(int64_t)operand]; machine->depth++; return true;
    case OP_POP: machine->depth--; return true;
    case OP_SWAP: top[0] = top[-1]; top[-1] = word; return true;
    case OP_ROT: top[0] = top[-1]; top[-1] = top[-2]; top[-2] = word; return true;
    case OP_LOG_NOT: *top = !word; return true;
    case OP_BIT_NOT: *top = ~word; return true;
    case OP_EXT: return extend(top, operand, true);
    case OP_ZERO_EXT: return extend(top, operand, false);
    case OP_REF8:
    case OP_REF16:
    case OP_REF32:
    case OP_REF64:
        *top = memory_value(word, 1 << (op - OP_REF8), &readable);
        return readable;
    }
    machine->depth--;
    return combine(op, &top[-1], word);
}

/* Evaluate `size` bytes of code; returns false where it cannot be. */
static bool evaluate(const uint8_t *code, uint32_t size, uint64_t *result)
{
    struct machine machine = {.depth = 0};
    uint32_t at = 0;

    for (unsigned i = 0; i < MAX_OPERATIONS && at < size; i++) {
        uint8_t op = code[at++];
        unsigned bytes = operand_bytes(op);
        uint64_t operand = 0;
        bool fine = true;

        if (bytes > size - at) {
            return false;
        }
        while (bytes--) {
            operand = operand << 8 | code[at++];
        }
        if (machine.depth < needed(op, operand) || machine.depth > MAX_STACK - 2) {
            return false;
        }
        if (op == OP_END) {
            *result = machine.stack[machine.depth - 1];
            return true;
        } else if (op == OP_GOTO) {
            at = operand;
        } else if (op == OP_IF_GOTO) {
            at = machine.stack[--machine.depth] ? operand : at;
        } else if (op == OP_REG) {
            machine.stack[machine.depth++] = register_value(operand, &fine);
        } else if (op >= OP_CONST8 && op <= OP_CONST64) {
            machine.stack[machine.depth++] = operand;
        } else {
            fine = arrange(&machine, op, operand);
        }
        if (!fine) {
            return false;
        }
    }
    return false;
}

/* Whether a condition counts: one that cannot be evaluated does, as in gdb. */
bool expression_holds(const struct expression *expression)
{
    uint64_t result;

    return !evaluate((uint8_t *)table(&page->code) + expression->offset, expression->size,
                     &result) || result;
}
