"""Typed entries: what each kind of entry holds, its line for the model, its statistics. No I/O, nothing of sessions."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from streams.entries.base import BuiltIn, EntryType, Record, Statistics
from streams.entries.defined import defined
from streams.entries.event import EVENT
from streams.entries.iot import IOT
from streams.entries.ohlcv import OHLCV
from streams.entries.spatial import SPATIAL
from streams.entries.vitals import VITALS

BUILTIN: Mapping[str, EntryType] = MappingProxyType({kind.name: kind for kind in (OHLCV, IOT, SPATIAL, EVENT, VITALS)})

__all__ = ["BUILTIN", "BuiltIn", "EntryType", "Record", "Statistics", "defined"]
