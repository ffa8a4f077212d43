"""Conditions as people write them, for breakpoints.

::

    rax == 5
    rdi & 0xff != 3 and [0xffffffff82000000]:4 > 7

A condition is one or more comparisons joined by ``and``; all must hold. What is compared
is a register, by QEMU's name for it, or ``[ADDRESS]:SIZE``, SIZE bytes (1 to 8, 8 if not
said) of virtual memory in the guest's byte order, either masked by ``& NUMBER`` if
wanted. The right side is a number. All is unsigned and 64 bits wide; ``-1`` is its two's
complement. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final, NoReturn

from retrograde.errors import UsageError
from retrograde.machine.probe.request import COMPARISONS, PCS, WORD, Condition

_TOKEN: Final = re.compile(
    r"\s*(?:(?P<number>-?(?:0[xX][0-9a-fA-F_]+|[0-9][0-9_]*)\b)|(?P<name>\$?[A-Za-z_][A-Za-z0-9_.]*)"
    r"|(?P<sign>==|!=|<=|>=|&&|\|\||[<>&\[\]:=]))"
)
_FORM: Final = "Write it like: rax == 5 and [0xffffffff82000000]:4 & 0xff > 7"


def parse_conditions(text: str, registers: Collection[str]) -> tuple[Condition, ...]:
    """Read a condition; `registers` are the names QEMU lists for the machine.

    Raises UsageError for what does not parse, and for registers that there are not.
    """
    return tuple(_Parser(text, registers).conditions())


class _Parser:
    """Reads tokens from left to right; each method takes what its name says."""

    def __init__(self, text: str, registers: Collection[str]) -> None:
        self._text = text
        self._registers = registers
        self._tokens = _tokens(text)

    def conditions(self) -> list[Condition]:
        found = [self._comparison()]
        while self._tokens:
            if self._take() not in ("and", "&&"):
                self._refuse("only `and` joins comparisons")
            found.append(self._comparison())
        return found

    def _comparison(self) -> Condition:
        operand, size = self._operand()
        mask = WORD
        if self._peek() == "&":
            self._take()
            mask = self._number("a mask")
        sign = self._take()
        if sign not in COMPARISONS:
            self._refuse(f"{sign!r} is not one of {' '.join(COMPARISONS)}")
        value = self._number("the number to compare with")
        return Condition(operand, sign, value, mask, size)

    def _operand(self) -> tuple[str | int, int]:
        if self._peek() == "[":
            return self._memory()
        name = self._take().removeprefix("$")
        if name not in self._registers:
            self._refuse(f"this machine has no register {name!r}")
        if name in PCS:
            self._refuse(f"the breakpoint's address says what {name} is")
        return name, 8

    def _memory(self) -> tuple[int, int]:
        self._take()
        address = self._number("an address")
        if self._take() != "]":
            self._refuse("the bracket is not closed")
        if self._peek() != ":":
            return address, 8
        self._take()
        size = self._number("a size")
        if not 1 <= size <= 8:
            self._refuse(f"{size} bytes cannot be compared, 1 to 8 can")
        return address, size

    def _number(self, what: str) -> int:
        text = self._take()
        try:
            number = int(text, 0 if text.lstrip("-")[:2].lower() == "0x" else 10)
        except ValueError:
            self._refuse(f"{text!r} is not {what}")
        if not -(1 << 63) <= number <= WORD:
            self._refuse(f"{text} does not fit into 64 bits")
        return number & WORD

    def _peek(self) -> str:
        return self._tokens[0] if self._tokens else ""

    def _take(self) -> str:
        if not self._tokens:
            self._refuse("something is missing at its end")
        return self._tokens.pop(0)

    def _refuse(self, why: str) -> NoReturn:
        raise UsageError(f"{self._text!r} is not a condition: {why}.", _FORM)


def _tokens(text: str) -> list[str]:
    tokens, at = [], 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            wrong = text[at:].strip()[0]
            raise UsageError(f"{text!r} is not a condition: {wrong!r} has no meaning.", _FORM)
        tokens.append(match[0].strip())
        at = match.end()
    return tokens
