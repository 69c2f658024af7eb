"""``askahead bench`` itself: one measurement after the other, so that none disturbs another."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass

from rich.console import Console

from service.cli.client import Client, connected, session_path
from service.cli.failures import Failure
from service.cli.showing import print_json, table

_QUESTION = "Is the latest value above 50? Answer yes or no."
_ENTRIES = 64
_WAIT_SECONDS = 60
_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Figures:
    """A measurement.

    Attributes:
        name: what was measured.
        count: how often.
        per_second: of them, over the time that all took.
        p50, p99, worst: of one, in milliseconds.
    """

    name: str
    count: int
    per_second: float
    p50: float
    p99: float
    worst: float

    @classmethod
    def of(cls, name: str, times: Sequence[float], seconds: float) -> Figures:
        """From what each took, in seconds, and all of them together. Raises Failure where there are none."""
        if not times:
            raise Failure(f"{name}: nothing was answered in time; measure for longer with --seconds")
        ordered = sorted(times)

        def share(part: float) -> float:
            return ordered[max(0, math.ceil(part * len(ordered)) - 1)] * 1e3

        return cls(name, len(times), len(times) / seconds, share(0.5), share(0.99), ordered[-1] * 1e3)


async def run(url: str, api_key: str | None, *, seconds: float, connections: int, json: bool) -> None:
    """Measure and print.

    Raises:
        Failure: the server cannot be reached or refuses something.
    """
    found: list[Figures] = []
    async with connected(url, api_key) as client:
        with Console(stderr=True).status("preparing") as status:
            async with client.own_session({"flash": [{"query": _QUESTION, "choices": ["yes", "no"]}]}) as session_id:
                ack = await client.push(session_id, [f"value {number % 100}" for number in range(_ENTRIES)])
                await client.queries(session_id, [("after", str(ack["total_pushed"])), ("wait", str(_WAIT_SECONDS))])
                for name, width, work in (
                    ("flash poll", connections, lambda: _poll(client, session_id)),
                    ("question, first token", 1, lambda: _ask(client, session_id)),
                    ("push, acknowledged", 1, lambda: _push(client, session_id)),
                ):
                    status.update(f"measuring: {name}")
                    found.append(await _measure(name, work, width, seconds))
    if json:
        print_json({"url": client.url, "connections": connections, "figures": [asdict(each) for each in found]})
        return
    shown = table((client.url,), ("count", "per second", "p50 ms", "p99 ms", "worst ms"))
    for each in found:
        shown.add_row(
            each.name,
            str(each.count),
            f"{each.per_second:,.1f}",
            *(f"{value:.2f}" for value in (each.p50, each.p99, each.worst)),
        )
    Console().print(shown)


async def _measure(name: str, work: Callable[[], Awaitable[float]], width: int, seconds: float) -> Figures:
    """Do something again and again, ``width`` at once; ``work`` returns the seconds that count."""
    times: list[float] = []
    started = time.perf_counter()
    until = started + seconds

    async def one() -> None:
        while time.perf_counter() < until:
            times.append(await work())

    async with asyncio.TaskGroup() as group:
        for _ in range(width):
            group.create_task(one())
    return Figures.of(name, times, time.perf_counter() - started)


async def _poll(client: Client, session_id: str) -> float:
    started = time.perf_counter()
    await client.queries(session_id)
    return time.perf_counter() - started


async def _push(client: Client, session_id: str) -> float:
    started = time.perf_counter()
    await client.push(session_id, ["value 51"])
    return time.perf_counter() - started


async def _ask(client: Client, session_id: str) -> float:
    """A question that no Flash Query has the answer to."""
    body = {"prompt": "What is the latest value?", "max_tokens": _TOKENS, "temperature": 0, "stream": True}
    started = time.perf_counter()
    first = 0.0
    async with aclosing(client.stream("POST", f"{session_path(session_id)}/generate", body)) as events:
        async for event in events:
            first = first or time.perf_counter() - started
            if "error" in event.data:
                raise Failure(f"a question failed: {event.data['error']['message']}")
    return first
