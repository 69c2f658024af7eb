"""Sharing the engine between ingest and foreground questions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import pacer as pacer_module
from streams.pacer import Pacer, SlicePolicy

POLICY = SlicePolicy(tokens_min=10, tokens_max=100, tokens_first=50)
RATES = st.floats(0, 1e9, allow_nan=False)


@given(RATES, st.booleans())
def test_a_slice_stays_within_its_bounds(rate: float, busy: bool) -> None:
    assert POLICY.tokens_min <= POLICY.size(rate, busy) <= POLICY.tokens_max


@given(RATES, RATES, st.booleans())
def test_a_faster_engine_never_gets_smaller_slices(one: float, other: float, busy: bool) -> None:
    slow, fast = sorted((one, other))
    assert POLICY.size(slow, busy) <= POLICY.size(fast, busy)


@given(RATES)
def test_slices_are_no_larger_while_somebody_asks(rate: float) -> None:
    assert POLICY.size(rate, busy=True) <= POLICY.size(rate, busy=False)


def test_slices_are_sized_in_time_once_the_rate_is_known() -> None:
    policy = SlicePolicy(seconds=0.5, seconds_busy=0.1, tokens_min=1, tokens_max=1000, tokens_first=7)
    assert policy.size(None, busy=False) == policy.size(None, busy=True) == 7
    assert policy.size(200.0, busy=False) == 100
    assert policy.size(200.0, busy=True) == 20


@pytest.fixture
def pacer() -> Pacer:
    return Pacer(POLICY)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ingest waits for a question's first token however long it takes."""
    monkeypatch.setattr(pacer_module, "_QUIET_SECONDS", 3600.0)


class Slice:
    """A slice that somebody wants, in a task of its own, held until told to end."""

    def __init__(self, pacer: Pacer, wanted: int) -> None:
        self.size: int | None = None
        self._end = asyncio.Event()
        self.task = asyncio.create_task(self._run(pacer, wanted))

    async def _run(self, pacer: Pacer, wanted: int) -> None:
        async with pacer.slice(wanted) as self.size:
            await self._end.wait()

    async def end(self) -> None:
        self._end.set()
        await self.task


@asynccontextmanager
async def slices(pacer: Pacer, *wanted: int) -> AsyncIterator[list[Slice]]:
    """Slices asked for in this order; the event loop has come to rest."""
    made = [Slice(pacer, tokens) for tokens in wanted]
    await settle()
    try:
        yield made
    finally:
        for one in made:
            one.task.cancel()
        await asyncio.gather(*(one.task for one in made), return_exceptions=True)


async def settle() -> None:
    """Let every task run until it waits for something."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_slice_is_no_larger_than_wanted(pacer: Pacer) -> None:
    async with pacer.slice(3) as size:
        assert size == 3
    async with pacer.slice(3000) as size:
        assert size == POLICY.size(pacer.rate, busy=False)


async def test_small_slices_share_one_and_the_next_waits_its_turn(pacer: Pacer) -> None:
    async with slices(pacer, 20, 20, 20, 20) as (first, second, third, fourth):
        assert [one.size for one in (first, second, third, fourth)] == [20, 20, 10, None]
        await third.end()
        await settle()
        assert fourth.size is not None


async def test_turns_come_in_order_of_arrival(pacer: Pacer) -> None:
    async with slices(pacer, 50, 50, 1) as (first, second, third):
        assert (second.size, third.size) == (None, None)
        await first.end()
        await settle()
        assert second.size is not None


async def test_a_stream_that_reads_on_and_on_lets_others_have_their_turn(pacer: Pacer) -> None:
    turns = []

    async def read(name: str, slices: int) -> None:
        for _ in range(slices):
            async with pacer.slice(1000):
                turns.append(name)
                await settle()

    async with asyncio.TaskGroup() as group:
        group.create_task(read("long", 3))
        group.create_task(read("short", 1))
    assert turns == ["long", "short", "long", "long"]


async def test_ingest_waits_for_a_first_token_and_goes_on_beside_the_decoding(pacer: Pacer, patient: None) -> None:
    with pacer.question() as question:
        async with slices(pacer, 10) as (one,):
            assert (one.size, pacer.waiting) == (None, 1)
            question.first_token()
            await settle()
            assert (one.size, pacer.waiting) == (10, 0)


async def test_ingest_waits_for_every_question(pacer: Pacer, patient: None) -> None:
    with pacer.question() as one, pacer.question() as other:
        async with slices(pacer, 10) as (ingest,):
            one.first_token()
            one.first_token()  # a second call is not a second question
            await settle()
            assert ingest.size is None
            other.first_token()
            await settle()
            assert ingest.size == 10


async def test_a_question_that_fails_before_its_first_token_lets_ingest_go_on(pacer: Pacer, patient: None) -> None:
    with pytest.raises(RuntimeError), pacer.question():
        raise RuntimeError
    async with pacer.slice(10) as size:
        assert size == 10


async def test_a_question_that_never_answers_does_not_block_ingest_for_ever(
    pacer: Pacer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacer_module, "_QUIET_SECONDS", 0.001)
    with pacer.question():
        for _ in range(3):
            async with pacer.slice(10) as size:
                assert size == 10


async def test_slices_shrink_while_a_question_is_being_answered() -> None:
    pacer = Pacer(SlicePolicy(seconds=0.5, seconds_busy=0.1, tokens_min=1, tokens_max=1000))
    pacer.rate = 200.0
    with pacer.question() as question:
        question.first_token()
        async with pacer.slice(1000) as size:
            assert size == 20
    async with pacer.slice(1000) as size:
        assert size > 20


@pytest.mark.parametrize("error", [RuntimeError, asyncio.CancelledError])
async def test_a_slice_that_fails_frees_its_place_and_teaches_nothing(pacer: Pacer, error: type[BaseException]) -> None:
    with pytest.raises(error):
        async with pacer.slice(50):
            raise error
    assert pacer.rate is None
    async with pacer.slice(50) as size:
        assert size == 50


async def test_one_who_stops_waiting_leaves_the_queue(pacer: Pacer, patient: None) -> None:
    async with slices(pacer, 50, 50, 50) as (first, second, third):
        second.task.cancel()
        await first.end()
        await settle()
        assert (second.size, third.size is None) == (None, False)


async def test_only_slices_of_some_size_teach_the_rate(pacer: Pacer) -> None:
    async with pacer.slice(POLICY.tokens_min - 1):
        await asyncio.sleep(0)
    assert pacer.rate is None
    async with pacer.slice(POLICY.tokens_min):
        await asyncio.sleep(0)
    assert pacer.rate is not None
    assert pacer.rate > 0


async def test_concurrent_slices_never_exceed_one(pacer: Pacer) -> None:
    in_flight = 0

    async def stream(tokens: int) -> None:
        nonlocal in_flight
        while tokens:
            async with pacer.slice(tokens) as size:
                assert 0 < size <= tokens
                in_flight += size
                assert in_flight <= POLICY.tokens_max
                await asyncio.sleep(0)
                in_flight -= size
            tokens -= size

    async with asyncio.TaskGroup() as group:
        for tokens in (5, 500, 33, 120, 1, 77):
            group.create_task(stream(tokens))
    async with AsyncExitStack() as everything:
        limit = POLICY.size(pacer.rate, busy=False)
        assert await everything.enter_async_context(pacer.slice(limit)) == limit
