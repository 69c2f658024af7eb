"""Records and states come back from their bytes as they were."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.entries import BUILTIN, EntryType, defined
from streams.ingest import Batch, Entry
from streams.messages import Message
from streams.records import Codec, Dropped, Froze, Moved, Pushed, Record, Settled, State, Turned
from streams.timeline import Data, Timeline, Turn

CANDLE = {"o": 1.5, "h": 2.0, "l": -1.0, "c": 1e300, "v": 7}
OWN = defined("own", {"type": "object", "properties": {"a": {"type": "integer"}}}, "a is {a}")
RECORDS: list[tuple[EntryType | None, list[Any]]] = [
    (None, [None]),
    (BUILTIN["ohlcv"], [None, *(BUILTIN["ohlcv"].parse(CANDLE | more, "data") for more in ({}, {"timestamp": 0}))]),
    (OWN, [None, {}, {"a": 2**62}]),
]

tokens = st.lists(st.integers(0, 2**32 - 1), max_size=5).map(tuple)


def entries(records: list[Any]) -> st.SearchStrategy[tuple[Entry, ...]]:
    sizes, times = st.integers(0, 2**30), st.floats(0, 2**33)
    return st.lists(st.builds(Entry, tokens, sizes, times, st.sampled_from(records)), max_size=5).map(tuple)


@st.composite
def written(draw: st.DrawFn) -> tuple[Codec, Record | State]:
    """Something to write, and what packs it."""
    type, kinds = draw(st.sampled_from(RECORDS))
    some = entries(kinds)
    turn = Turn((Message("user", "Hm?"),), draw(tokens), 1.5)
    timeline = Timeline.of(
        draw(tokens),
        [Data((), list(draw(some))), turn, Data(draw(tokens), list(draw(some)))],
        frozen=draw(some),
        forgotten=(Message("assistant", "Hm."),),
    )
    state = State(
        number=9,
        version=8,
        covered=7,
        turns=1,
        batches=6,
        reading_seconds=0.5,
        evicted=5,
        total_pushed=40,
        total_dropped=30,
        system="Be brief.",
        head=draw(tokens),
        tail=draw(tokens),
        timeline=timeline,
        pending=tuple(Batch(draw(some), last) for last in (20, 40)),
        tally={"count": 3},
    )
    turned = Turned(1, 0, draw(tokens), draw(tokens), None, draw(tokens), True, turn, draw(tokens), 3)
    records = [Pushed(draw(some)), Dropped(1, 2), Settled(1, 2, 0.5), turned, Moved(1, 2), Froze(), state]
    return Codec(type), draw(st.sampled_from(records))


@given(written())
def test_what_is_written_is_read_back(case: tuple[Codec, Record | State]) -> None:
    codec, value = case
    if isinstance(value, State):
        assert codec.unpack_state(codec.pack_state(value)) == value
    else:
        assert codec.unpack(codec.pack(value)) == value


@pytest.mark.parametrize(
    "columns",
    [
        [bytes(8), bytes(4), bytes(4), bytes(8), None],
        [bytes(4), b"\1\0\0\0", bytes(8), bytes(8), None],
        [bytes(4), b"\1\0\0\0", bytes(4), bytes(8), [None, None]],
        [bytes(4), b"\1\0\0\0", bytes(4), bytes(7), None],
        [bytes(4), b"\1\0\0\0", bytes(4), None],
        [],
    ],
)
def test_damaged_entries_are_refused(columns: list[Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        Codec(None).unpack(msgpack.packb(["Pushed", columns]))
