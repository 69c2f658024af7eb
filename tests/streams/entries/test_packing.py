"""Records, types and statistics outlive the process: through msgpack and back they are what they were."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.entries import BUILTIN, EntryType, defined, pack_type, unpack_type
from streams.entries.accumulators import MAX_NAMES
from streams.entries.schema import MAX_LEVELS
from streams.errors import InvalidInput
from streams.ingest import Entry
from streams.tally import Tally
from tests.streams.entries.kit import MOVES, NAMES, NUMBERS, attempt, entries
from tests.streams.entries.test_defined import FREE, SCHEMA
from tests.streams.entries.test_entries import ANYTHING, CASES, SAMPLES

INTEGERS = st.one_of(st.integers(0, 7), st.integers(-(2**63), 2**63 - 1))
VALUES = st.recursive(
    st.none() | st.booleans() | INTEGERS | NUMBERS | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
STREAMS: dict[str, st.SearchStrategy[list[dict[str, Any]]]] = {
    "ohlcv": entries(dict.fromkeys("ohlcv", NUMBERS), sym=NAMES),
    "iot": entries({"sid": NAMES} | dict.fromkeys(("val", "lo", "hi"), NUMBERS)),
    "spatial": entries(dict.fromkeys(("x", "y", "z", "spd", "hdg"), NUMBERS)),
    "event": entries({"src": NAMES, "sev": INTEGERS, "cat": NAMES, "cnt": st.integers(0, 2**63 - 1)}),
    "vitals": entries(dict.fromkeys(("hr", "bp_s", "bp_d", "spo2", "temp"), NUMBERS)),
}
FREELY = st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(("a", "b", "text", "more"), VALUES)), max_size=40)


def kept(value: Any) -> Any:
    """What comes back of what is written."""
    return msgpack.unpackb(msgpack.packb(value))


def same(one: object, other: object) -> bool:
    """Equal to the bit, as -0.0 is not 0.0 and 1 not 1.0."""
    return repr(one) == repr(other)


@pytest.fixture(scope="module")
def kinds() -> dict[str, EntryType]:
    return {**BUILTIN, "free": defined("free", FREE, "{a} {b}")}


STREAM = st.one_of(
    *(st.tuples(st.just(name), stream) for name, stream in STREAMS.items()), st.tuples(st.just("free"), FREELY)
)


@given(STREAM)
def test_records_come_back(kinds: dict[str, EntryType], stream: tuple[str, list[dict[str, Any]]]) -> None:
    kind = kinds[stream[0]]
    for entry in stream[1]:
        record = kind.parse(entry, "data.0")
        back = kind.unpack(kept(kind.pack(record)))
        assert same(back, record)
        assert kind.line(back) == kind.line(record)


@given(STREAM, st.integers(0, 40))
def test_restored_statistics_go_on_as_if_nothing_had_been(
    kinds: dict[str, EntryType], stream: tuple[str, list[dict[str, Any]]], cut: int
) -> None:
    kind = kinds[stream[0]]
    records = [kind.parse(entry, "data.0") for entry in stream[1]]
    one, other = kind.statistics(windowed=False), kind.statistics(windowed=False)
    for record in records[:cut]:
        one.add(record)
    other.restore(kept(one.state(kind.pack)), kind.unpack)
    assert same(other.report(), one.report())
    for record in records[cut:]:
        one.add(record)
        other.add(record)
        assert same(other.report(), one.report())
    assert kept(other.state(kind.pack)) == kept(one.state(kind.pack))


@given(STREAM, MOVES, st.integers(0, 60), st.booleans())
def test_a_tally_comes_back_with_its_window(
    kinds: dict[str, EntryType], stream: tuple[str, list[dict[str, Any]]], moves: list[bool], cut: int, windowed: bool
) -> None:
    kind = kinds[stream[0]]
    coming = iter([Entry((1,), 1, record=kind.parse(entry, "data.0")) for entry in stream[1]])
    tallies = [Tally(kind, windowed)]
    inside: list[Entry] = []

    def go(moves: list[bool]) -> None:
        for move in moves:
            if move and (entry := next(coming, None)) is not None:
                inside.append(entry)
                for tally in tallies:
                    tally.add([entry])
            elif inside:
                gone = inside.pop(0)
                for tally in tallies:
                    tally.drop([gone])

    go(moves[:cut])
    tallies.append(Tally(kind, windowed))
    tallies[1].restore(kept(tallies[0].state()), inside)
    go(moves[cut:])
    for over in ("window", "stream"):
        assert same(tallies[1].report(over), tallies[0].report(over))


@pytest.mark.parametrize("windowed", [True, False])
def test_of_raw_text_the_count_comes_back(windowed: bool) -> None:
    entry = Entry((1,), 1)
    one, other = Tally(None, windowed), Tally(None, windowed)
    one.add([entry] * 3)
    one.drop([entry])
    other.restore(kept(one.state()), [entry] * 2)
    assert other.report("stream") == one.report("stream") == {"count": 3}
    assert other.report("window") == one.report("window") == {"count": 2 if windowed else 3}


def test_sums_of_any_size_and_names_up_to_their_bound_come_back() -> None:
    event = BUILTIN["event"]
    one, other = event.statistics(windowed=False), event.statistics(windowed=False)
    for number in range(MAX_NAMES + 3):
        one.add(event.parse({"src": str(number), "sev": -1, "cat": "a", "cnt": 2**63 - 1}, "data.0"))
    other.restore(kept(one.state(event.pack)), event.unpack)
    new = event.parse({"src": "new", "sev": 6, "cat": "b", "cnt": 1}, "data.0")
    for statistics in (one, other):
        statistics.add(new)
    assert other.report() == one.report()
    assert other.report()["unique_sources"] == MAX_NAMES


@pytest.mark.parametrize("type", [*BUILTIN.values(), None, defined("hosts", SCHEMA, "{host:>8} cpu={cpu:.1f}% {{}}")])
def test_a_type_comes_back(type: EntryType | None) -> None:
    back = unpack_type(kept(pack_type(type)))
    if type is None or type.name != "hosts":
        assert back is type
        return
    assert back is not None
    assert back.name == type.name
    assert pack_type(back) == pack_type(type)
    entry = {"host": "a", "cpu": 3.25, "more": {"b": [1, None]}}
    assert back.line(back.parse(entry, "data.0")) == type.line(type.parse(entry, "data.0"))
    for wrong in ({"cpu": 1}, {"host": "a", "cpu": 101}, {"host": "a", "disk": 1}):
        refusals = attempt(back.parse, wrong, "data.0"), attempt(type.parse, wrong, "data.0")
        assert isinstance(refusals[0], InvalidInput)
        assert str(refusals[0]) == str(refusals[1])


@pytest.mark.parametrize(("kind", "sample"), CASES)
def test_a_damaged_record_is_refused(kind: EntryType, sample: dict[str, Any]) -> None:
    packed = kind.pack(kind.parse(sample, "data.0"))
    first = next(iter(sample))
    for damaged in ({}, None, [], b"x", 7, packed | {first: None}, packed | {first: []}, packed | {"other": 1}):
        with pytest.raises(ValueError, match=r"."):
            kind.unpack(damaged)


def test_a_damaged_record_of_a_defined_type_is_refused() -> None:
    for damaged in (None, [], b"x", 7):
        with pytest.raises(ValueError, match="is kept as an object"):
            defined("free", FREE, "{a}").unpack(damaged)


@pytest.mark.parametrize(
    "damaged",
    [
        "stocks", 7, [], b"ohlcv", {}, {"name": "x"}, {"name": "x", "schema": FREE, "template": "{z}"},
        {"name": "x y", "schema": FREE, "template": "{a}"}, {"name": "x", "schema": {}, "template": "{a}"},
    ],
)  # fmt: skip
def test_a_type_that_is_none_is_refused(damaged: object) -> None:
    with pytest.raises(ValueError, match="entry type"):
        unpack_type(damaged)


@given(st.sampled_from([*SAMPLES, "free"]), st.data())
def test_a_damaged_state_is_refused(kinds: dict[str, EntryType], name: str, data: st.DataObject) -> None:
    kind = kinds[name]
    statistics = kind.statistics(windowed=False)
    for _ in range(2):
        statistics.add(kind.parse(SAMPLES.get(name, {"a": 1, "b": 2.5}), "data.0"))
    state = kept(statistics.state(kind.pack))
    damage = data.draw(st.sampled_from(["whole", "part", "figure", "missing"]))
    if damage == "whole":
        state = data.draw(ANYTHING)
    elif damage == "part":
        state[data.draw(st.sampled_from(sorted(state)))] = data.draw(st.text() | st.none() | st.floats())
    elif damage == "figure":
        place = data.draw(st.integers(0, len(state["figures"]) - 1))
        state["figures"][place] = data.draw(st.text() | st.none() | st.integers() | st.lists(st.text()))
    else:
        state["figures"].pop()
    with pytest.raises(ValueError, match=r"."):
        kind.statistics(windowed=False).restore(state, kind.unpack)


@pytest.mark.parametrize(
    ("name", "place", "damaged"),
    [
        ("iot", 0, [0, [1.0, 0]]),
        ("iot", 0, [2, [1.0, 2]]),
        ("iot", 0, [2, ["1", 0]]),
        ("iot", 0, [2]),
        ("iot", 2, 7),
        ("iot", 3, [1]),
        ("event", 3, {"a": 0}),
        ("event", 3, {"a": "b"}),
        ("event", 3, {b"a": 1}),
    ],
)
def test_a_damaged_figure_is_refused(name: str, place: int, damaged: object) -> None:
    kind = BUILTIN[name]
    statistics = kind.statistics(windowed=False)
    statistics.add(kind.parse(SAMPLES[name], "data.0"))
    state = kept(statistics.state(kind.pack))
    state["figures"][place] = damaged
    with pytest.raises(ValueError, match="kept as"):
        kind.statistics(windowed=False).restore(state, kind.unpack)


def test_windowed_statistics_have_no_state() -> None:
    with pytest.raises(ValueError, match="made of their entries again"):
        BUILTIN["iot"].statistics(windowed=True).state(BUILTIN["iot"].pack)


def levels(count: int) -> Any:
    value: Any = 1
    for _ in range(count):
        value = [value]
    return value


def test_an_entry_is_as_deep_as_msgpack_can_keep() -> None:
    kind = defined("free", FREE, "{a}")
    record = kind.parse({"a": levels(MAX_LEVELS - 1)}, "data.0")
    assert kind.unpack(kept(kind.pack(record))) == record
    for value in (levels(MAX_LEVELS), levels(600), "\ud800", ["\ud800"], {"\ud800": 1}):
        with pytest.raises(InvalidInput) as refused:
            kind.parse({"a": value}, "data.0")
        assert refused.value.param == "data.0"
