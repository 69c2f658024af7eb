"""Market ticks: real hourly candles of EUR/USD, two a second. With the official client: pip install layerscale."""

import argparse
import asyncio
import csv
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import distribution
from itertools import cycle, islice
from typing import Any

from layerscale import APIConnectionError, AsyncLayerScale

URL = os.environ.get("ASKAHEAD_URL", "http://127.0.0.1:8080")
KEY = os.environ.get("ASKAHEAD_API_KEY")
CANDLES = distribution("backtesting").locate_file("backtesting/test/EURUSD.csv")  # installed by `make setup`
CENTS = ("06", "07", "08", "09")  # of the dollar, where the price is in the file's first weeks
HISTORY, PAUSE = 12, 0.5

SESSION: dict[str, Any] = {
    "type": "ohlcv",
    "window": 1500,
    "flash": [
        {"query": "What is the next close?", "choices": [f"The next close is 1.{cents}" for cents in CENTS]},
        # Asked only while the window's candles have moved the price: a quiet market costs nothing.
        {"query": "Is the price rising or falling?", "choices": ["rising", "falling"], "when": "abs(change_pct) > 0.2"},
    ],
}


def candles() -> Iterator[dict[str, Any]]:
    with open(str(CANDLES), newline="") as file:
        rows = list(csv.reader(file))[1:]
    for time, *figures in cycle(rows):
        values = dict(zip("ohlcv", map(float, figures), strict=True))
        stamp = datetime.fromisoformat(time).replace(tzinfo=UTC).timestamp()
        yield {**values, "sym": "EURUSD", "timestamp": int(stamp)}


async def push(client: AsyncLayerScale, session: str) -> None:
    feed = candles()
    await client.sessions.push(session, list(islice(feed, HISTORY)))
    for candle in feed:
        await asyncio.sleep(PAUSE)
        await client.sessions.push(session, [candle])


async def watch(client: AsyncLayerScale, session: str) -> None:
    async for event in await client.sessions.events(session):
        if event.type == "flash_ready" and event.changed:
            print(f"version {event.data_version}: {event.query} {event.value}", flush=True)


async def main(seconds: float) -> None:
    async with AsyncLayerScale(base_url=URL, api_key=KEY) as client:
        session = (await client.sessions.create(**SESSION)).id
        print(f"watch it at {URL}/dashboard#/{session}", flush=True)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds), asyncio.TaskGroup() as tasks:
                    tasks.create_task(push(client, session))
                    tasks.create_task(watch(client, session))
        finally:
            await client.sessions.delete(session)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    try:
        with suppress(KeyboardInterrupt):
            asyncio.run(main(parser.parse_args().seconds))
    except APIConnectionError:
        sys.exit(f"no server answers at {URL}; start one with `make serve`, or name another in ASKAHEAD_URL")
