"""Typed entries: what each kind of entry holds, its line for the model, its statistics. No I/O, nothing of sessions."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from streams.entries.base import BuiltIn, EntryType, Record, Statistics
from streams.entries.defined import defined
from streams.entries.event import EVENT
from streams.entries.iot import IOT
from streams.entries.ohlcv import OHLCV
from streams.entries.spatial import SPATIAL
from streams.entries.vitals import VITALS
from streams.errors import InvalidInput

BUILTIN: Mapping[str, EntryType] = MappingProxyType({kind.name: kind for kind in (OHLCV, IOT, SPATIAL, EVENT, VITALS)})

__all__ = ["BUILTIN", "BuiltIn", "EntryType", "Record", "Statistics", "defined", "pack_type", "unpack_type"]


def pack_type(type: EntryType | None) -> str | dict[str, Any] | None:
    """A stream's type in msgpack's types: its name, or all that a user-defined one is made of; None for raw text."""
    return None if type is None else type.definition


def unpack_type(packed: object) -> EntryType | None:
    """The type that was packed.

    Raises:
        ValueError: it is none, or one that this version does not know.
    """
    match packed:
        case None:
            return None
        case str(name) if name in BUILTIN:
            return BUILTIN[name]
        case {"name": str(name), "schema": schema, "template": str(template)}:
            try:
                return defined(name, schema, template)
            except InvalidInput as exc:
                raise ValueError(f"the entry type {name!r} cannot be made again: {exc.message}") from exc
    raise ValueError("an entry type is kept as its name, or as name, schema and template")
