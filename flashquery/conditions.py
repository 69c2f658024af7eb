"""Conditions over a session's statistics, such as ``change_pct > 1 and alerts.fever_episodes == 0``. Pure, no I/O.

Grammar::

    condition  = junction {"or" junction}
    junction   = negation {"and" negation}
    negation   = "not" negation | comparison
    comparison = operand [("<" | "<=" | ">" | ">=" | "==" | "!=") operand]
    operand    = number | "text" | 'text' | name {"." name} | "-" operand | "abs" "(" operand ")" | "(" condition ")"
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

LONGEST = 500
"""Most characters of a condition."""

Scalar = int | float | str
Values = Mapping[str, Scalar]

_DEEPEST = 20
_ALLOWED = (
    "a condition compares (< <= > >= == !=) numbers, texts in quotes and names of statistics such as "
    "alerts.fever_episodes, joined by and, or, not and parentheses; -x and abs(x) are allowed"
)
_TOKEN = re.compile(
    r"""\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
    |(?P<text>"[^"\\]*"|'[^'\\]*')
    |(?P<name>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)
    |(?P<sign><=|>=|==|!=|[-<>()])
    |(?P<end>$))""",
    re.ASCII | re.VERBOSE,
)
_SPACES = " \t\n\r\f\v"
_WORDS = frozenset({"and", "or", "not", "abs"})
_ORDERINGS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_EQUALITIES: Mapping[str, Callable[[Scalar, Scalar], bool]] = {"==": operator.eq, "!=": operator.ne}


class _Unfit(Exception):
    """A value is a text where a number is needed, or the other way round."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition.

    Attributes:
        text: as it was written.
        names: the statistics it looks at.
    """

    text: str
    names: frozenset[str]
    _truth: Callable[[Values], bool] = field(repr=False, compare=False)

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read a condition.

        Raises:
            ValueError: it is none; the message says where it goes wrong and what is allowed.
        """
        return _Parser(text).condition()

    def holds(self, values: Values) -> bool:
        """Whether it is so.

        It is not where one of its names has no value, or is a text where a number is needed: whichever way the names
        are combined, what is not known is no reason to act.
        """
        if not self.names <= values.keys():
            return False
        try:
            return self._truth(values)
        except _Unfit:
            return False


@dataclass(frozen=True, slots=True)
class _Truth:
    of: Callable[[Values], bool]


@dataclass(frozen=True, slots=True)
class _Value:
    of: Callable[[Values], Scalar]


_Part = _Truth | _Value


class _Token(NamedTuple):
    kind: str
    word: str
    at: int


def _scan(text: str) -> Iterator[_Token]:
    at, kind = 0, ""
    while kind not in ("end", "unknown"):
        found = _TOKEN.match(text, at)
        kind = (found and found.lastgroup) or "unknown"
        start = found.start(kind) if found else len(text) - len(text[at:].lstrip(_SPACES))
        word = found[kind] if found else text[start]
        yield _Token("word" if kind == "name" and word in _WORDS else kind, word, start)
        at = start + len(word)


class _Parser:
    """Reads one condition by recursive descent, to functions of the values."""

    def __init__(self, text: str) -> None:
        if len(text) > LONGEST:
            raise ValueError(f"must be at most {LONGEST} characters long")
        self._text = text
        self._tokens = list(_scan(text))
        self._names: set[str] = set()
        self._depth = 0

    def condition(self) -> Condition:
        truth = self._truth(self._either())
        if self._next.kind != "end":
            raise self._wrong()
        return Condition(self._text, frozenset(self._names), truth.of)

    @property
    def _next(self) -> _Token:
        return self._tokens[0]

    def _take(self) -> str:
        return self._tokens.pop(0).word

    def _sees(self, *words: str) -> bool:
        return self._next.kind in ("word", "sign") and self._next.word in words

    def _expect(self, word: str) -> None:
        if not self._sees(word):
            raise self._wrong()
        self._take()

    def _wrong(self, reason: str = "") -> ValueError:
        found = self._next
        what = reason or (f"`{found.word}` is not expected there" if found.word else "something is missing")
        return ValueError(f"at character {found.at + 1}: {what}; {_ALLOWED}")

    def _inner(self, part: Callable[[], _Part]) -> _Part:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._wrong("it is nested too deeply")
        found = part()
        self._depth -= 1
        return found

    def _truth(self, part: _Part) -> _Truth:
        if isinstance(part, _Value):
            raise self._wrong("a comparison is missing")
        return part

    def _value(self, part: _Part) -> _Value:
        if isinstance(part, _Truth):
            raise self._wrong("a comparison cannot be compared or calculated with")
        return part

    def _either(self) -> _Part:
        return self._joined("or", any, self._both)

    def _both(self) -> _Part:
        return self._joined("and", all, self._negation)

    def _joined(self, word: str, join: Callable[[list[bool]], bool], part: Callable[[], _Part]) -> _Part:
        first = part()
        if not self._sees(word):
            return first
        parts = [self._truth(first)]
        while self._sees(word):
            self._take()
            parts.append(self._truth(part()))
        # Every part is looked at, so that one that does not fit shows wherever it stands.
        return _Truth(lambda values: join([one.of(values) for one in parts]))

    def _negation(self) -> _Part:
        if not self._sees("not"):
            return self._comparison()
        self._take()
        truth = self._truth(self._inner(self._negation))
        return _Truth(lambda values: not truth.of(values))

    def _comparison(self) -> _Part:
        first = self._operand()
        if not self._sees(*_ORDERINGS, *_EQUALITIES):
            return first
        left, sign = self._value(first), self._take()
        right = self._value(self._operand())
        if sign in _EQUALITIES:
            equality = _EQUALITIES[sign]
            return _Truth(lambda values: equality(left.of(values), right.of(values)))
        return _Truth(lambda values: _ordered(sign, left.of(values), right.of(values)))

    def _operand(self) -> _Part:
        kind = self._next.kind
        if kind == "number":
            number = float(self._next.word)
            if not math.isfinite(number):
                raise self._wrong("the number is too large")
            self._take()
            return _Value(lambda _: number)
        if kind == "text":
            text = self._take()[1:-1]
            return _Value(lambda _: text)
        if kind == "name":
            name = self._take()
            self._names.add(name)
            return _Value(lambda values: values[name])
        if self._sees("-"):
            self._take()
            negated = self._value(self._inner(self._operand))
            return _Value(lambda values: -_number(negated.of(values)))
        if self._sees("abs"):
            self._take()
            self._expect("(")
            inner = self._value(self._inner(self._operand))
            self._expect(")")
            return _Value(lambda values: abs(_number(inner.of(values))))
        if self._sees("("):
            self._take()
            part = self._inner(self._either)
            self._expect(")")
            return part
        raise self._wrong()


def _number(value: Scalar) -> float:
    if isinstance(value, str):
        raise _Unfit
    return value


def _ordered(sign: str, left: Scalar, right: Scalar) -> bool:
    if isinstance(left, str) or isinstance(right, str):
        raise _Unfit
    return _ORDERINGS[sign](left, right)
