from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from streams import context, tracing
from streams.journal import Journal
from streams.tracing import Causes
from tests.streams import server

SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PASSED_ON = SAMPLED[:-2] + "00"


class Recorder:
    """A tracer that writes down what ends, in order: name, parent and error."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, str, object]] = []

    def start(
        self, name: str, attributes: tracing.Attributes, parent: str, links: Sequence[str], kind: tracing.Kind
    ) -> tracing.Span:
        recorder = self

        class Span(tracing.Recorded):
            def end(self, error: BaseException | str | None = None) -> None:
                recorder.ended.append((name, parent, error))

        return Span(f"00-{name:0>32}-{name:0>16}-01")


def test_nothing_is_recorded_unless_something_records() -> None:
    assert not tracing.on()
    span = tracing.start("a", {}, parent=SAMPLED)
    assert span is tracing.OFF
    with span, span.active():
        assert tracing.current() == tracing.trace_id() == ""
        assert tracing.headers() == {}
        assert tracing.child("b", {}) is tracing.OFF


def test_a_part_belongs_to_what_is_current_and_to_nothing_outside() -> None:
    recorder = Recorder()
    with tracing.use(recorder):
        assert tracing.child("alone", {}) is tracing.OFF
        with tracing.start("a", {}) as outer:
            assert tracing.headers() == {"traceparent": outer.traceparent}
            assert tracing.trace_id() == "a".rjust(32, "0")
            with tracing.child("b", {}) as inner:
                assert tracing.current() == inner.traceparent
            assert tracing.current() == outer.traceparent
    assert tracing.current() == ""
    assert recorder.ended == [("b", outer.traceparent, None), ("a", "", None)]
    assert not tracing.on()


def test_a_span_fails_with_what_is_raised_and_passes_it_on() -> None:
    recorder, error = Recorder(), ValueError("no")
    with tracing.use(recorder), pytest.raises(ValueError, match="no"), tracing.start("a", {}):
        raise error
    assert recorder.ended == [("a", "", error)]
    assert tracing.current() == ""


def test_a_span_that_is_active_does_not_end() -> None:
    recorder = Recorder()
    with tracing.use(recorder):
        span = tracing.start("a", {})
        with span.active():
            assert tracing.current() == span.traceparent
        assert recorder.ended == []
        with span:
            pass
    assert recorder.ended == [("a", "", None)]


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=300), st.integers(0, 1500), st.integers(0, 1500))
def test_causes_are_the_newest_that_are_recorded(pushes: list[tuple[int, bool]], settled: int, asked: int) -> None:
    causes, expected, number = Causes(), list[tuple[int, str]](), 0
    for at, (entries, sampled) in enumerate(pushes):
        number += entries
        traceparent = f"00-{at + 1:032x}-{1:016x}-{'01' if sampled else '00'}"
        causes.add(number, traceparent)
        expected += [(number, traceparent)] if sampled else []
    expected = expected[-128:]
    assert causes.of(asked) == [traceparent for last, traceparent in expected if last <= asked]
    causes.forget(settled)
    assert causes.of(number) == [traceparent for last, traceparent in expected if last > settled]


@pytest.mark.parametrize(
    ("traceparent", "sampled"), [(SAMPLED, True), (SAMPLED[:-2] + "03", True), (PASSED_ON, False), ("", False)]
)
def test_what_is_only_passed_on_is_not_recorded(traceparent: str, sampled: bool) -> None:
    assert tracing.sampled(traceparent) is sampled


async def test_a_write_is_applied_in_the_context_of_who_handed_it_in(redis: Redis) -> None:
    seen: list[tuple[str, str]] = []

    def applied(_: int) -> None:
        seen.append((context.REQUEST.get(), context.SESSION.get()))

    async def write(journal: Journal, name: str) -> None:
        context.REQUEST.set(f"req_{name}")
        with context.about(name):
            await journal.write(name, [("SET", f"x:{name}", "1")], applied)

    async with server.serving(redis) as running:
        for name in ("a", "b"):
            await running.manager.create(name)
        await asyncio.gather(*(write(running.journal, name) for name in ("a", "b")))
    assert sorted(seen) == [("req_a", "a"), ("req_b", "b")]
    assert context.REQUEST.get() == context.SESSION.get() == ""


async def test_a_task_of_a_session_knows_no_request() -> None:
    async def work() -> tuple[str, str]:
        return context.REQUEST.get(), context.SESSION.get()

    context.REQUEST.set("req_1")
    try:
        assert await asyncio.create_task(work(), context=context.of("s")) == ("", "s")
        assert await asyncio.create_task(work()) == ("req_1", "")
    finally:
        context.REQUEST.set("")
