"""Entry types that users define: a JSON schema says what an entry holds, a template how it reads."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from streams.entries.accumulators import ExactSum, Highest, Lowest
from streams.entries.base import EntryType, Statistics
from streams.entries.schema import EntrySchema
from streams.entries.template import LineTemplate
from streams.errors import InvalidInput

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def defined(name: str, schema: object, template: str, param: str = "type") -> EntryType:
    """A user-defined type.

    Args:
        name: 1 to 64 letters, digits, ``_`` and ``-``.
        schema: JSON schema of a flat object; see :mod:`streams.entries.schema`.
        template: of the line; see :mod:`streams.entries.template`.
        param: what to call the definition when it is refused.

    Raises:
        InvalidInput: name, schema or template are not usable; ``param`` is e.g. ``type.template``.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"{param}.name: must be 1 to 64 letters, digits, _ and -", param=f"{param}.name")
    checked = EntrySchema(schema, f"{param}.schema")
    return _Defined(name, checked, LineTemplate(template, checked.names, f"{param}.template"))


class _Defined(EntryType):
    def __init__(self, name: str, schema: EntrySchema, template: LineTemplate) -> None:
        self.name = name
        self._schema = schema
        self._template = template

    @property
    def definition(self) -> dict[str, Any]:
        return {"name": self.name, "schema": self._schema.value, "template": self._template.text}

    def pack(self, record: dict[str, Any]) -> dict[str, Any]:
        return record

    def unpack(self, packed: object) -> dict[str, Any]:
        # Any object would do for the line and the statistics; what the schema says was checked when it came in.
        if not isinstance(packed, dict):
            raise ValueError(f"an entry of {self.name} is kept as an object")
        return packed

    def parse(self, value: object, param: str) -> dict[str, Any]:
        return self._schema.parse(value, param)

    def line(self, record: dict[str, Any]) -> str:
        return self._template.line(record)

    def statistics(self, windowed: bool) -> DefinedStatistics:
        return DefinedStatistics(windowed, self._schema.names)


class DefinedStatistics(Statistics[dict[str, Any]]):
    """Of each property the numbers it has been given; entries where it is absent, or no number, are passed over."""

    def __init__(self, windowed: bool, names: tuple[str, ...]) -> None:
        super().__init__(windowed)
        self._numbers = {name: self.each(_Numbers(windowed), _number_of(name)) for name in names}

    def report(self) -> dict[str, Any]:
        fields = {name: numbers.report() for name, numbers in self._numbers.items() if numbers.count}
        return {"count": self.count, "fields": fields}


class _Numbers:
    """The figures of one property."""

    def __init__(self, windowed: bool) -> None:
        self.count = 0
        self._last: float = 0
        self._lowest = Lowest[float](windowed)
        self._highest = Highest[float](windowed)
        self._sum = ExactSum()

    def add(self, value: float | None) -> None:
        if value is None:
            return
        self.count += 1
        self._last = value
        for figure in (self._lowest, self._highest, self._sum):
            figure.add(value)

    def drop(self, value: float | None) -> None:
        if value is None:
            return
        self.count -= 1
        for figure in (self._lowest, self._highest, self._sum):
            figure.drop(value)

    def state(self) -> list[Any]:
        return [self.count, self._last, *(figure.state() for figure in (self._lowest, self._highest, self._sum))]

    def restore(self, state: object) -> None:
        match state:
            case [int(count), int() | float() as last, lowest, highest, total] if count >= 0:
                self.count, self._last = count, last
                self._lowest.restore(lowest)
                self._highest.restore(highest)
                self._sum.restore(total)
            case _:
                raise ValueError("numbers are kept as their count, the last, and three figures")

    def report(self) -> dict[str, Any]:
        return {
            "last": self._last,
            "min": self._lowest.value,
            "max": self._highest.value,
            "avg": self._sum.over(self.count),
            "sum": self._sum.value,
        }


def _number_of(name: str) -> Callable[[dict[str, Any]], float | None]:
    def value(record: dict[str, Any]) -> float | None:
        found = record.get(name)
        return found if isinstance(found, int | float) and not isinstance(found, bool) else None

    return value
