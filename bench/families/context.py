"""A question after each tick, by length of context: Askahead, its floor, and what a user would run instead."""

from __future__ import annotations

import asyncio
import logging
import statistics
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from bench.askahead import Answer, Client
from bench.candles import CANDLE_TOKENS, Feed
from bench.rows import Result, Row, Series, Target, at_least, at_most, compared, milliseconds, percentile
from bench.servers import QUIET_SECONDS, Fleet
from bench.sides import AtOnce, Flash, Floor, Resent, Resident, Side, Uncached

log = logging.getLogger("bench")

_LONGEST_ANSWER = 8
_RESIDENT, _AT_ONCE, _FLASH, _FLOOR = "Askahead", "Askahead, tick included", "Flash Query", "AsyncLLM floor"
_VLLM, _UNCACHED, _LLAMA = "vllm serve", "vllm serve, no prefix cache", "llama.cpp server"
_SIDES: Mapping[str, tuple[str, type[Side]]] = {
    _RESIDENT: ("askahead", Resident),
    _AT_ONCE: ("askahead", AtOnce),
    _FLASH: ("askahead", Flash),
    _FLOOR: ("floor", Floor),
    _VLLM: ("vllm", Resent),
    _UNCACHED: ("vllm without cache", Uncached),
    _LLAMA: ("llama.cpp", Resent),
}


@dataclass(slots=True)
class _Samples:
    """Answers of one side at one context, by round."""

    rounds: list[list[Answer]] = field(default_factory=list)

    @property
    def first(self) -> list[float]:
        """Milliseconds to the first token, all rounds."""
        return milliseconds([answer.first for answers in self.rounds for answer in answers])

    @property
    def firsts(self) -> list[float]:
        """The median of each round."""
        return milliseconds([statistics.median(answer.first for answer in answers) for answers in self.rounds])

    @property
    def wholes(self) -> list[float]:
        """The same of complete answers."""
        return milliseconds([statistics.median(answer.whole for answer in answers) for answers in self.rounds])

    @property
    def whole(self) -> list[float]:
        """Milliseconds to the complete answer, all rounds."""
        return milliseconds([answer.whole for answers in self.rounds for answer in answers])


async def measure(fleet: Fleet, full: bool) -> Result:
    """Every round visits every side, in an order that rotates; each visit is some ticks with a question after each."""
    contexts = (512, 1024, 2048, 4096, 7168) if full else (2048, 4096)
    rounds, ticks = (5, 2) if full else (3, 1)
    result = Result(rounds=rounds)
    lines: dict[str, list[tuple[float, float]]] = {name: [] for name in _SIDES}
    feed = Feed()
    async with AsyncExitStack() as stack:
        sides: dict[str, Side] = {}
        for name, (server, kind) in _SIDES.items():
            sides[name] = kind(await stack.enter_async_context(Client(await fleet.get(server))))
        for side in sides.values():
            await side.begin(feed.take(2))
            await side.tick(feed.take(1)[0])
            await side.ask(_LONGEST_ANSWER)
            await side.end()
        for context in contexts:
            log.info("%d tokens of context", context)
            samples = await _at(context, sides, feed, rounds, ticks)
            result.rows += _rows(context, samples)
            for name, found in samples.items():
                lines[name].append((float(context), statistics.median(found.first)))
    result.series["latency"] = Series(
        "First token of a question after a tick", "context, tokens", "milliseconds", lines, logarithmic=True
    )
    return result


async def _at(context: int, sides: Mapping[str, Side], feed: Feed, rounds: int, ticks: int) -> dict[str, _Samples]:
    """All rounds at one context, which is reached when half of the ticks have come."""
    count = context // CANDLE_TOKENS - rounds * ticks // 2
    candles, fresh = feed.take(count), feed.take(rounds * ticks)
    for side in sides.values():
        await side.begin(candles)
    samples = {name: _Samples() for name in sides}
    names = list(sides)
    for number in range(rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            await asyncio.sleep(QUIET_SECONDS)
            answers = []
            for left, candle in zip(reversed(range(ticks)), fresh[number * ticks :], strict=False):
                await sides[name].tick(candle)
                if not left or not sides[name].asked_once:
                    answers.append(await sides[name].ask(_LONGEST_ANSWER))
            samples[name].rounds.append(answers)
    for side in sides.values():
        await side.end()
    _check(samples)
    return samples


def _check(samples: Mapping[str, _Samples]) -> None:
    """Whoever has another prompt does another thing."""
    prompts = {name: found.rounds[-1][-1].prompt for name, found in samples.items() if name != _FLASH}
    if max(prompts.values()) > 1.02 * min(prompts.values()):
        raise RuntimeError(f"the sides' prompts differ in length: {prompts}")


def _rows(context: int, samples: Mapping[str, _Samples]) -> list[Row]:
    ours, at_once = samples[_RESIDENT], samples[_AT_ONCE]
    rows = []
    for name, found in samples.items():
        rows += [
            Row(measure=f"{context}: {name}, first token, p50", value=percentile(found.first, 0.5), unit="ms"),
            Row(measure=f"{context}: {name}, first token, p95", value=percentile(found.first, 0.95), unit="ms"),
            Row(
                measure=f"{context}: {name}, {_LONGEST_ANSWER} tokens, p50",
                value=percentile(found.whole, 0.5),
                unit="ms",
            ),
        ]
    for name, target in _targets(context).items():
        theirs = samples[name]
        rows.append(compared(f"{context}: question, first token", ours.firsts, theirs.firsts, "ms", name, target))
        rows.append(compared(f"{context}: question, {_LONGEST_ANSWER} tokens", ours.wholes, theirs.wholes, "ms", name))
        if name != _FLOOR:
            rows.append(
                compared(
                    f"{context}: tick and question at once, first token", at_once.firsts, theirs.firsts, "ms", name
                )
            )
    if context >= 7000:
        rows.append(
            compared(
                f"{context}: times faster a Flash Query is",
                samples[_VLLM].firsts,
                samples[_FLASH].firsts,
                "ms",
                _FLASH,
                at_least(100),
            )
        )
    return rows


def _targets(context: int) -> dict[str, Target | None]:
    """What a question's first token must reach against each baseline."""
    long = context >= 4000
    return {
        _FLOOR: None,  # families/floor.py asks often enough to tell
        _VLLM: at_most(0.72) if long else at_most(0.8) if context >= 2000 else None,
        _UNCACHED: at_most(0.05) if long else None,
        _LLAMA: at_most(0.35) if long else at_most(0.45) if context >= 2000 else None,
    }
