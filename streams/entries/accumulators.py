"""Running figures over a queue of values: the newest is added, the oldest dropped. Exact, O(1) amortised.

All have ``add(value)`` and ``drop(value)``; what is dropped is the oldest value that was added and not dropped yet.
Those without a window have ``state()`` as well, of msgpack's types, and ``restore(state)`` of one that is empty; it
raises ValueError of what is no such state.
"""

from __future__ import annotations

import sys
from collections import deque
from fractions import Fraction
from operator import gt, lt
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T", bound=float)

# Every finite double is a whole number of these.
_SCALE = 1074
_LARGEST = sys.float_info.max
_LARGEST_INTEGER = 2**63 - 1

# Distinct names that a whole stream's statistics tell apart; bounds memory, at most some MB per session.
MAX_NAMES = 16_384


def finite(value: float) -> float:
    """The largest finite double of the same sign in place of an infinity, which JSON does not have."""
    return max(-_LARGEST, min(value, _LARGEST))


def nearest(numerator: int | Fraction, denominator: int = 1) -> float:
    """The finite double nearest to an exact quotient; 0 where nothing is divided by nothing."""
    if not denominator:
        return 0.0
    try:
        # Integers and fractions are divided exactly, and rounded once.
        return float(numerator / denominator)
    except OverflowError:
        return _LARGEST if numerator > 0 else -_LARGEST


class _Sum:
    """An integer of any size, which msgpack has only as bytes."""

    def __init__(self) -> None:
        self._total = 0

    def state(self) -> bytes:
        return self._total.to_bytes(self._total.bit_length() // 8 + 1, "big", signed=True)

    def restore(self, state: object) -> None:
        if not isinstance(state, bytes):
            raise ValueError("a sum is kept as bytes")
        self._total = int.from_bytes(state, "big", signed=True)


class ExactSum(_Sum):
    """A sum of floats without rounding, so that what was dropped leaves no trace.

    It is kept as an integer of at most 2,098 bits plus one for every doubling of the count.
    """

    def add(self, value: float) -> None:
        self._total += _scaled(value)

    def drop(self, value: float) -> None:
        self._total -= _scaled(value)

    @property
    def exact(self) -> Fraction:
        """The sum itself."""
        return Fraction(self._total, 1 << _SCALE)

    @property
    def value(self) -> float:
        """The sum, rounded once."""
        return self.over(1)

    def over(self, count: int) -> float:
        """The sum divided by ``count``, rounded once; 0 of no values."""
        return nearest(self._total, count << _SCALE)


def _scaled(value: float) -> int:
    numerator, denominator = value.as_integer_ratio()
    return numerator << (_SCALE - denominator.bit_length() + 1)


class Total(_Sum):
    """A sum of integers, or how often a condition held."""

    def add(self, value: int) -> None:
        self._total += value

    def drop(self, value: int) -> None:
        self._total -= value

    @property
    def value(self) -> int:
        """The sum; held at the largest integer of 64 bits, which msgpack and most JSON readers end at."""
        return min(self._total, _LARGEST_INTEGER)


class _Extreme(Generic[T]):
    """The largest or the smallest value, and where it is; of equal ones the first."""

    def __init__(self, windowed: bool, higher: bool) -> None:
        self._windowed = windowed
        self._beats = gt if higher else lt
        # Each with its position; every value beats all that follow it, or equals them. The first is the extreme.
        self._candidates: deque[tuple[T, int]] = deque()
        self._added = 0
        self._dropped = 0

    def add(self, value: T) -> None:
        position, self._added = self._added, self._added + 1
        while self._candidates and self._beats(value, self._candidates[-1][0]):
            self._candidates.pop()
        # Without a window the present extreme never leaves, so nothing that it beats is ever needed.
        if self._windowed or not self._candidates:
            self._candidates.append((value, position))

    def drop(self, value: T) -> None:
        if self._candidates[0][1] == self._dropped:
            self._candidates.popleft()
        self._dropped += 1

    def state(self) -> list[Any]:
        return [self._added, *self._candidates]

    def restore(self, state: object) -> None:
        match state:
            case [0]:
                pass
            case [int(added), [int() | float() as extreme, int(position)]] if 0 <= position < added:
                self._added = added
                self._candidates.append((cast(T, extreme), position))
            case _:
                raise ValueError("an extreme is kept as how many values there were, and which was it where")

    @property
    def value(self) -> T | None:
        """None if there are no values."""
        return self._candidates[0][0] if self._candidates else None

    @property
    def index(self) -> int:
        """Position among the values that have not been dropped, from 0; 0 if there are none."""
        return self._candidates[0][1] - self._dropped if self._candidates else 0


class Highest(_Extreme[T]):
    """The largest value, and where it is; of equal ones the first."""

    def __init__(self, windowed: bool) -> None:
        super().__init__(windowed, higher=True)


class Lowest(_Extreme[T]):
    """The smallest value, and where it is; of equal ones the first."""

    def __init__(self, windowed: bool) -> None:
        super().__init__(windowed, higher=False)


class Names:
    """How many distinct names there are, and which is the commonest; of equally common ones the one that comes first.

    In a window all are told apart, for its entries hold them anyway. Of a whole stream the first :data:`MAX_NAMES`
    are; others are passed over from then on, so the figures remain exact for those.
    """

    def __init__(self, windowed: bool) -> None:
        self._names: deque[str] | None = deque() if windowed else None
        # In the order of their first occurrence, as long as nothing is dropped.
        self._counts: dict[str, int] = {}

    def add(self, value: str) -> None:
        if self._names is not None:
            self._names.append(value)
        elif value not in self._counts and len(self._counts) >= MAX_NAMES:
            return
        self._counts[value] = self._counts.get(value, 0) + 1

    def drop(self, value: str) -> None:
        if self._names is not None:
            self._names.popleft()
        self._counts[value] -= 1
        if not self._counts[value]:
            del self._counts[value]

    def state(self) -> dict[str, int]:
        return dict(self._counts)

    def restore(self, state: object) -> None:
        if not isinstance(state, dict) or not all(
            isinstance(name, str) and isinstance(count, int) and count > 0 for name, count in state.items()
        ):
            raise ValueError("names are kept as a map to how often each occurred")
        self._counts = state

    @property
    def distinct(self) -> int:
        return len(self._counts)

    @property
    def commonest(self) -> tuple[str, int]:
        """The name and how often it occurs, in time that grows with the names; empty and 0 if there are none."""
        most = max(self._counts.values(), default=0)
        ordered = self._counts if self._names is None else self._names
        return next((name for name in ordered if self._counts[name] == most), ""), most
