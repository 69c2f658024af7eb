"""A question over a resident stream against ``AsyncLLM`` itself, called and served: what everything around it costs.

Two processes of one program differ by more than what is looked for, so there are several of each; and a question takes
little time, so there are many rounds.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack

from bench.askahead import Client
from bench.candles import CANDLE_TOKENS, Feed
from bench.rows import Result, at_most, compared, milliseconds
from bench.servers import QUIET_SECONDS, Fleet
from bench.sides import Floor, Resident, Served, Side

log = logging.getLogger("bench")

_OURS, _CALLED, _SERVED = "Askahead", "AsyncLLM", "AsyncLLM over HTTP"
_ANSWER_TOKENS = 8

Times = dict[str, list[float]]
"""Seconds by side, one per round."""


async def measure(fleet: Fleet, full: bool) -> Result:
    """Every round asks every side once, after a tick, in an order that rotates."""
    contexts = (512, 1024, 2048, 4096, 7168) if full else (2048, 4096)
    processes, rounds = (4, 8) if full else (1, 8)
    result = Result(rounds=processes * rounds)
    firsts: dict[int, Times] = {context: {name: [] for name in (_OURS, _CALLED, _SERVED)} for context in contexts}
    wholes: dict[int, Times] = {context: {name: [] for name in (_OURS, _CALLED, _SERVED)} for context in contexts}
    feed = Feed()
    await fleet.keep()
    for number in range(processes):
        async with AsyncExitStack() as stack:
            # Which of them finds the memory as the other left it must not matter either.
            for name in ("askahead", "floor") if number % 2 else ("floor", "askahead"):
                await fleet.fresh(name, *(("--kv-cache-gb", "1") if name == "askahead" else ()))
            ours = await stack.enter_async_context(Client(await fleet.get("askahead")))
            floor = await stack.enter_async_context(Client(await fleet.get("floor")))
            sides: dict[str, Side] = {_OURS: Resident(ours), _CALLED: Floor(floor), _SERVED: Served(floor)}
            for context in contexts:
                log.info("process %d of %d, %d tokens of context", number + 1, processes, context)
                await _at(context, sides, feed, rounds, firsts[context], wholes[context])
    for context in contexts:
        for name, target in ((_CALLED, at_most(1.08)), (_SERVED, None)):
            for what, times, wanted in (
                ("first token", firsts[context], target),
                (f"{_ANSWER_TOKENS} tokens", wholes[context], None),
            ):
                mine, theirs = milliseconds(times[_OURS]), milliseconds(times[name])
                result.rows.append(compared(f"{context}: question, {what}", mine, theirs, "ms", name, wanted))
    return result


async def _at(context: int, sides: dict[str, Side], feed: Feed, rounds: int, firsts: Times, wholes: Times) -> None:
    """All rounds at one context, which is reached when half of the ticks have come."""
    candles = feed.take(context // CANDLE_TOKENS - rounds // 2)
    for side in sides.values():
        await side.begin(candles)
    names = list(sides)
    for number in range(rounds):
        shift = number % len(names)
        candle = feed.take(1)[0]
        for name in names[shift:] + names[:shift]:
            await asyncio.sleep(QUIET_SECONDS)
            await sides[name].tick(candle)
            answer = await sides[name].ask(_ANSWER_TOKENS)
            firsts[name].append(answer.first)
            wholes[name].append(answer.whole)
    for side in sides.values():
        await side.end()
