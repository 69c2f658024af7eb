"""The line of a user-defined entry: a template of literal text and ``{field}`` or ``{field:format}``.

A template only ever looks up a field by its name: there are no attributes, indices, conversions or nested fields.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any

from streams.entries.rendering import MAX_TEXT, number, single_line
from streams.errors import InvalidInput

MAX_TEMPLATE = 1024
MAX_FIELDS = 64
MAX_WIDTH = 32
MAX_PRECISION = 15

# Alignment and width for any value; sign, thousands and precision for numbers.
_FORMAT = re.compile(
    r"(?P<align>[<>^]?)(?P<sign>\+?)(?P<width>(?:[1-9][0-9]?)?)(?P<comma>,?)(?P<digits>(?:\.[0-9]{1,2}[feg%])?)"
)
_ABSENT = "-"


@dataclass(frozen=True, slots=True)
class _Field:
    """One field of a template, with the literal text before it."""

    before: str
    name: str
    pad: str
    numeric: str


class LineTemplate:
    """A checked template.

    Args:
        template: from a client.
        names: the fields that entries may have.
        param: what to call it when it is refused.

    Raises:
        InvalidInput: it is no such template, or names other fields.
    """

    def __init__(self, template: str, names: Collection[str], param: str) -> None:
        if len(template) > MAX_TEMPLATE:
            raise InvalidInput(f"{param}: has more than {MAX_TEMPLATE} characters; make it shorter", param=param)
        if not template.isprintable():
            raise InvalidInput(f"{param}: must be one line of printable characters", param=param)
        try:
            parts = list(Formatter().parse(template))
        except ValueError as exc:
            raise InvalidInput(
                f"{param}: {exc}; a field is written {{name}} or {{name:.1f}}, and a brace {{{{ or }}}}", param=param
            ) from None
        self.text = template
        self._fields: list[_Field] = []
        before = ""
        for literal, name, spec, conversion in parts:
            before += literal
            if name is None:
                continue
            if conversion is not None:
                raise InvalidInput(f"{param}: conversions such as !r are not supported", param=param)
            self._fields.append(_field(before, name, spec or "", names, param))
            before = ""
        self._end = before
        if not self._fields:
            raise InvalidInput(f"{param}: names no field; write one as {{name}}", param=param)
        if len(self._fields) > MAX_FIELDS:
            raise InvalidInput(f"{param}: names more than {MAX_FIELDS} fields; leave some out", param=param)

    def line(self, record: Mapping[str, Any]) -> str:
        """One line of at most ``MAX_TEMPLATE + MAX_FIELDS * MAX_TEXT`` characters."""
        fields = (field.before + _written(record.get(field.name), field) for field in self._fields)
        return "".join(fields) + self._end


def _field(before: str, name: str, spec: str, names: Collection[str], param: str) -> _Field:
    if name not in names:
        known = ", ".join(names)
        raise InvalidInput(
            f"{param}: {{{single_line(name)}}} is none of the schema's properties; there are {single_line(known)}",
            param=param,
        )
    match = _FORMAT.fullmatch(spec)
    if match is None or int(match["width"] or 0) > MAX_WIDTH or int(match["digits"][1:-1] or 0) > MAX_PRECISION:
        raise InvalidInput(
            f"{param}: the format of {{{single_line(name)}}} must be alignment (< > ^), sign (+), width up to "
            f"{MAX_WIDTH}, thousands (,) and precision up to {MAX_PRECISION} with one of f e g %, such as >8 or .1f",
            param=param,
        )
    return _Field(before, name, match["align"] + match["width"], match["sign"] + match["comma"] + match["digits"])


def _written(value: Any, field: _Field) -> str:
    return f"{_text(value, field.numeric):{field.pad}}"


def _text(value: Any, numeric: str) -> str:
    """A value as text; the numeric part of a format concerns numbers only."""
    if value is None:
        return _ABSENT
    if isinstance(value, str):
        return single_line(value) or _ABSENT
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not numeric:
            return number(value)
        # Whole numbers without a precision are written without decimals.
        whole = numeric[-1] in "+," and value == int(value)
        text = format(int(value) if whole else value, numeric)
        # A fixed precision makes hundreds of digits of an extreme number.
        return text if len(text) <= MAX_TEXT else number(value)
    return single_line(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
