"""When queries are evaluated, over what, and where the answers go."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from flashquery import keys
from flashquery.events import Event, SubscriptionEnded
from streams.engine.base import Priority, Sampling
from streams.entries import BUILTIN
from streams.errors import Conflict, InvalidInput, NotFound
from tests.engine.fast import FastEngine, FastTokenizer
from tests.flashquery.conftest import Store
from tests.flashquery.kit import Rig, arrived, flashing, ready
from tests.streams.kit import SECONDS, until


@pytest.fixture
async def rig(redis: Redis) -> AsyncIterator[Rig]:
    async with flashing(redis) as rig:
        yield rig


async def test_a_query_is_evaluated_after_every_batch(rig: Rig) -> None:
    session = await rig.manager.create("s")
    query = await rig.flash.register(session, "trend?")
    with rig.hub.subscribe("s") as events:
        for version in (1, 2, 3):
            assert await rig.push(session, f"price {version}") == version
            announced = await ready(events)
            answer = (await rig.stored("s")).get(query.id)
            assert answer is not None
            assert (announced["id"], announced["query"]) == (query.id, "trend?")
            assert (announced["value"], announced["data_version"]) == (answer.value, answer.version)
            assert answer.version == version
            assert answer.confidence > 0
    assert [done.behind for done in rig.evaluations] == [0, 0, 0]


async def test_every_query_of_a_session_is_evaluated_over_the_same_version(rig: Rig) -> None:
    session = await rig.manager.create("s")
    queries = [await rig.flash.register(session, f"question {number}?") for number in range(5)]
    with rig.hub.subscribe("s") as events:
        version = await rig.push(session, "price 1")
        announced = [await ready(events) for _ in queries]
    assert {one["id"] for one in announced} == {query.id for query in queries}
    assert {one["data_version"] for one in announced} == {version}
    assert set(await rig.stored("s")) == {query.id for query in queries}


async def test_a_query_registered_over_data_is_evaluated_at_once_and_once(rig: Rig) -> None:
    session = await rig.manager.create("s")
    await rig.push(session, "price 1")
    with rig.hub.subscribe("s") as events:
        await rig.flash.register(session, "trend?")
        assert (await ready(events))["data_version"] == 1
        await rig.flash.register(session, "another?")
        assert (await ready(events))["query"] == "another?"
    assert len(rig.asked()) == 2


async def test_a_query_registered_over_nothing_waits_for_data(rig: Rig) -> None:
    session = await rig.manager.create("s", system="Be brief.")
    await rig.flash.register(session, "trend?")
    await until(lambda: session.kv_tokens == session.data_end)
    with rig.hub.subscribe("s") as events:
        await rig.push(session, "price 1")
        assert (await ready(events))["data_version"] == 1
    assert len(rig.asked()) == 1


async def test_the_newest_version_is_next_and_those_in_between_are_skipped(rig: Rig) -> None:
    session = await rig.manager.create("s")
    await rig.flash.register(session, "trend?")
    rig.engine.generate_gate.clear()
    await rig.push(session, "price 1")
    await until(lambda: rig.engine.running)
    # New data neither wait for the evaluation nor end it.
    for number in range(2, 6):
        await rig.push(session, f"price {number}")
    assert rig.engine.running == 1
    with rig.hub.subscribe("s") as events:
        rig.engine.generate_gate.set()
        # The older answer may be overtaken on its way out, the newest always comes.
        while (await ready(events))["data_version"] != 5:
            continue
    assert [done.behind for done in rig.evaluations] == [4, 0]
    assert len(rig.asked()) == 2


async def test_an_answer_is_what_the_model_says_at_that_version(rig: Rig) -> None:
    session = await rig.manager.create("s")
    query = await rig.flash.register(session, "trend?", max_tokens=8)
    with rig.hub.subscribe("s") as events:
        for number in range(6):
            await rig.push(session, f"price {number}")
            announced = await ready(events)
            prompt = await rig.manager.questions.prompt(session, query.tokens)
            pieces = rig.engine.generate(prompt.tokens, Sampling(max_tokens=8, top_logprobs=2), Priority.FOREGROUND)
            said = [piece async for piece in pieces]
            assert announced["value"] == "".join(piece.text for piece in said)
            first, second = sorted(said[0].logprobs[0].values(), reverse=True)
            assert announced["confidence"] == first - second
    assert all(call.priority in (Priority.FLASH, Priority.FOREGROUND, Priority.INGEST) for call in rig.engine.calls)


async def test_an_answer_that_was_cut_off_says_so(rig: Rig) -> None:
    session = await rig.manager.create("s")
    query = await rig.flash.register(session, "trend?", max_tokens=1)
    with rig.hub.subscribe("s") as events:
        await rig.push(session, "price 1")
        announced = await ready(events)
    answer = (await rig.stored("s")).get(query.id)
    assert answer is not None
    assert (len(announced["value"]), answer.finish_reason) == (1, "length")


async def test_the_event_says_whether_the_value_changed(rig: Rig) -> None:
    session = await rig.manager.create("s")
    await rig.flash.register(session, "trend?")
    last = None
    seen: set[bool] = set()
    with rig.hub.subscribe("s") as events:
        while len(seen) < 2:
            await rig.push(session, "price")
            announced = await ready(events)
            assert announced["changed"] == (announced["value"] != last)
            last = announced["value"]
            seen.add(announced["changed"])


async def test_news_of_data_come_before_the_answers_over_them(rig: Rig) -> None:
    session = await rig.manager.create("s")
    await rig.flash.register(session, "trend?")
    with rig.hub.subscribe("s") as events:
        await rig.push(session, "price 1")
        kinds = []
        while "flash_ready" not in kinds:
            event = await events.next(SECONDS)
            assert event is not None
            kinds.append(event.kind)
            if event.kind == "data_updated":
                assert event.data == {"data_version": 1, "tokens": session.tokens, "entries": 1, "pending": 0}
    assert [kind for kind in kinds if kind in ("data_updated", "flash_ready")] == ["data_updated", "flash_ready"]


async def test_choices_carry_the_probability_of_each(rig: Rig) -> None:
    session = await rig.manager.create("s")
    query = await rig.flash.register(session, "up?", choices=["yes", "no"])
    with rig.hub.subscribe("s") as events:
        await rig.push(session, "price 1")
        announced = await ready(events)
    tokens = {choice: ord(choice[0]) for choice in ("yes", "no")}
    prompt = await rig.manager.questions.prompt(session, query.tokens)
    asked = Sampling(max_tokens=1, logprob_token_ids=tuple(sorted(tokens.values())))
    [piece] = [piece async for piece in rig.engine.generate(prompt.tokens, asked, Priority.FOREGROUND)]
    expected = {choice: math.exp(piece.logprobs[0][token]) for choice, token in tokens.items()}
    assert announced["probabilities"] == pytest.approx(expected)
    assert announced["mass"] == pytest.approx(sum(expected.values()))
    assert announced["value"] == max(expected, key=lambda choice: expected[choice])
    answer = (await rig.stored("s")).get(query.id)
    assert answer is not None
    assert (answer.probabilities, answer.mass) == (announced["probabilities"], announced["mass"])


async def test_a_choice_that_begins_another_costs_one_token_more(rig: Rig) -> None:
    session = await rig.manager.create("s")
    await rig.flash.register(session, "who?", choices=["no", "nobody", "everybody"])
    with rig.hub.subscribe("s") as events:
        await rig.push(session, "price 1")
        announced = await ready(events)
    assert set(announced["probabilities"]) == {"no", "nobody", "everybody"}
    first, second = sorted(rig.asked())
    assert second == first + len("no")


async def test_no_more_evaluations_run_than_allowed(redis: Redis) -> None:
    async with flashing(redis, concurrency=2) as rig:
        rig.engine.generate_gate.clear()
        sessions = [await rig.manager.create() for _ in range(3)]
        for session in sessions:
            for number in range(3):
                await rig.flash.register(session, f"question {number}?")
            await rig.push(session, "price 1")
        await until(lambda: rig.engine.running)
        for _ in range(100):
            await asyncio.sleep(0)
        assert rig.engine.running == 2
        rig.engine.generate_gate.set()
        await until(lambda: len(rig.evaluations) == 9)


# The end of queries and sessions


async def test_the_late_answer_of_a_removed_query_is_not_stored(rig: Rig) -> None:
    session = await rig.manager.create("s")
    removed, kept = await rig.flash.register(session, "removed?"), await rig.flash.register(session, "kept?")
    rig.engine.generate_gate.clear()
    await rig.push(session, "price 1")
    await until(lambda: rig.engine.running == 2)
    assert await rig.flash.remove(session, removed.id) == 1
    with rig.hub.subscribe("s") as events:
        rig.engine.generate_gate.set()
        assert (await ready(events))["id"] == kept.id
        await rig.push(session, "price 2")
        assert (await ready(events))["id"] == kept.id
    assert list(await rig.stored("s")) == [kept.id]


async def test_removing_a_query_forgets_its_answer(rig: Rig) -> None:
    session = await rig.manager.create("s")
    query = await rig.flash.register(session, "trend?")
    await rig.push(session, "price 1")
    await until(lambda: rig.evaluations)
    await rig.flash.remove(session, query.id)
    await arrived(rig)
    assert await rig.stored("s") == {}
    with pytest.raises(NotFound):
        await rig.flash.remove(session, query.id)
    assert (await rig.flash.register(session, "trend?")).id == query.id + 1


async def test_a_new_session_is_told_to_those_who_wait_for_some_of_its_kind(rig: Rig) -> None:
    with rig.hub.subscribe(prefix="plant-") as events:
        await rig.manager.create("other")
        await rig.manager.create("plant-1")
        assert await events.next(SECONDS) == Event("created", {}, "plant-1")


async def test_a_session_takes_its_answers_and_subscribers_with_it(rig: Rig, redis: Redis) -> None:
    before = asyncio.all_tasks()
    session, other = await rig.manager.create("s"), await rig.manager.create("other")
    for one in (session, other):
        await rig.flash.register(one, "trend?")
        await rig.push(one, "price 1")
    await until(lambda: len(rig.evaluations) == 2)
    await arrived(rig)
    with rig.hub.subscribe("s") as events:
        await rig.manager.delete("s")
        assert await events.next(SECONDS) == Event("deleted", {}, "s")
        with pytest.raises(SubscriptionEnded) as ended:
            await events.next(SECONDS)
        assert ended.value.reason == "deleted"
    assert await redis.exists(keys.answers("s")) == 0
    assert len(await rig.stored("other")) == 1
    await rig.manager.delete("other")
    assert asyncio.all_tasks() == before


async def test_a_session_deleted_while_it_is_evaluated_leaves_nothing_to_its_successor(rig: Rig) -> None:
    session = await rig.manager.create("s")
    await rig.flash.register(session, "trend?")
    rig.engine.generate_gate.clear()
    await rig.push(session, "price 1")
    await until(lambda: rig.engine.running)
    await rig.manager.delete("s")
    assert rig.engine.running == 0
    rig.engine.generate_gate.set()
    with pytest.raises(NotFound):
        await rig.flash.register(session, "late?")
    with pytest.raises(NotFound):
        rig.flash.match(session, "trend?")
    successor = await rig.manager.create("s")
    assert len(rig.flash.registry(successor)) == 0
    await rig.push(successor, "price 1")
    await arrived(rig)
    assert await rig.stored("s") == {}
    assert rig.evaluations == []


async def test_leaving_in_the_middle_of_a_wave_leaves_no_task(redis: Redis) -> None:
    before = asyncio.all_tasks()
    async with flashing(redis) as rig:
        session = await rig.manager.create("s")
        for number in range(3):
            await rig.flash.register(session, f"question {number}?", choices=["a", "b", "bb"])
        rig.engine.generate_gate.clear()
        await rig.push(session, "price 1")
        await until(lambda: rig.engine.running)
    assert asyncio.all_tasks() == before
    assert rig.engine.running == 0


# The cache


async def test_only_a_fresh_answer_to_exactly_this_text_is_a_match(rig: Rig) -> None:
    session = await rig.manager.create("s")
    query = await rig.flash.register(session, "trend?")
    assert rig.flash.match(session, "trend?") is None
    with rig.hub.subscribe("s") as events:
        await rig.push(session, "price 1")
        announced = await ready(events)
    matched = rig.flash.match(session, "trend?")
    assert matched is not None
    assert (matched[0], matched[1].value, matched[1].version) == (query, announced["value"], 1)
    for other in ("trend", "Trend?", "trend? "):
        assert rig.flash.match(session, other) is None
    rig.engine.generate_gate.clear()
    await rig.push(session, "price 2")
    assert rig.flash.match(session, "trend?") is None


async def test_an_answer_that_is_found_while_redis_is_away_arrives_when_it_is_back(store: Store) -> None:
    async with flashing(store.redis) as rig:
        session = await rig.manager.create("s")
        query = await rig.flash.register(session, "trend?")
        rig.engine.generate_gate.clear()
        await rig.push(session, "price 1")
        await until(lambda: rig.engine.running)
        await store.stop()
        rig.engine.generate_gate.set()
        await until(lambda: rig.evaluations)
        assert rig.flash.match(session, "trend?") is None
        await store.start()
        await arrived(rig)
        answer = (await rig.stored("s")).get(query.id)
        assert answer is not None
        assert answer.version == 1


# Registration


async def test_registering_is_bounded_and_clamped(redis: Redis) -> None:
    async with flashing(redis, max_queries=3) as rig:
        session = await rig.manager.create("s")
        asked = [(await rig.flash.register(session, f"{tokens}?", tokens)).max_tokens for tokens in (-5, 40, 10_000)]
        assert asked == [1, 40, 256]
        with pytest.raises(Conflict) as refused:
            await rig.flash.register(session, "-5?")
        assert refused.value.code == "flash_query_exists"
        with pytest.raises(Conflict) as refused:
            await rig.flash.register(session, "one too many?")
        assert refused.value.code == "flash_query_limit"


async def test_a_query_that_would_not_fit_a_full_stream_is_refused(redis: Redis) -> None:
    async with flashing(redis, FastEngine(context=512)) as rig:
        session = await rig.manager.create("s")
        room = rig.manager.room.questions - len(session.frame.tail) - 1
        with pytest.raises(InvalidInput) as refused:
            await rig.flash.register(session, "x" * (room + 1))
        assert refused.value.param == "query"
        with pytest.raises(InvalidInput):
            await rig.flash.register(session, "x" * (room - 9), choices=["short", "y" * 10])
        await rig.flash.register(session, "x" * room)
        await rig.flash.register(session, "x" * (room - 10), choices=["short", "y" * 10])
        full = 512 - rig.manager.room.questions - len(session.frame.head) - 1
        await rig.push(session, "d" * full)
        await until(lambda: len(rig.evaluations) == 2)


async def test_statistics_leave_room_in_a_full_stream(redis: Redis) -> None:
    async with flashing(redis, FastEngine(context=512)) as rig:
        session = await rig.manager.create("s", type=BUILTIN["vitals"])
        room = rig.manager.room.questions // 2 - len(session.frame.tail) - 1
        with pytest.raises(InvalidInput, match=f"beside {rig.manager.room.questions // 2} for statistics") as refused:
            await rig.flash.register(session, "x" * (room + 1), with_stats="window")
        assert refused.value.param == "with_stats"
        with pytest.raises(InvalidInput):
            await rig.flash.register(session, "x" * (room - 9), choices=["short", "y" * 10], with_stats="stream")
        later = await rig.flash.register(session, "x" * (room + 1))
        with pytest.raises(InvalidInput):
            await rig.flash.change(session, later.id, with_stats="window")
        await rig.flash.remove(session, later.id)
        await rig.flash.register(session, "x" * room, with_stats="window")
        await rig.flash.register(session, "x" * (room - 10), choices=["short", "y" * 10], with_stats="stream")
        await rig.manager.push(session, [{"hr": 72, "bp_s": 120, "bp_d": 80, "spo2": 97.5, "temp": 38.2}])
        await until(lambda: len(rig.evaluations) == 2)
        await rig.push(session, "d" * (512 - rig.manager.room.questions - session.tokens - 1))
        await until(lambda: len(rig.evaluations) == 4)


class Folding(FastTokenizer):
    """Knows no capitals, as vocabularies that normalize text."""

    def encode(self, text: str) -> list[int]:
        return super().encode(text.lower())


@pytest.mark.parametrize("choices", [["", "a"], ["Up", "down", "up"]])
async def test_choices_the_model_cannot_tell_apart_are_refused(
    rig: Rig, choices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FastEngine, "tokenizer", Folding())
    session = await rig.manager.create("s")
    with pytest.raises(InvalidInput) as refused:
        await rig.flash.register(session, "which?", choices=choices)
    assert refused.value.param == "choices"
    assert len(rig.flash.registry(session)) == 0
