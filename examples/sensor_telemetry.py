"""Sensor telemetry: real hourly temperatures of two cities, from July on. With aiohttp: pip install aiohttp."""

import argparse
import asyncio
import csv
import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import distribution
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import aiohttp

URL = os.environ.get("ASKAHEAD_URL", "http://127.0.0.1:8080")
HEADERS = {"x-api-key": os.environ.get("ASKAHEAD_API_KEY", "")}
DATA = distribution("vega-datasets").locate_file("vega_datasets/_data")  # installed by `make setup`
SENSORS = {"seattle": ("seattle-temps.csv", 56, 72), "san-francisco": ("sf-temps.csv", 56, 66)}  # normal range in °F
DECADES = [f"The temperature in seattle is {decade}" for decade in ("50s", "60s", "70s", "80s")]
JULY, PAUSE = 181 * 24, 0.5

SESSION: dict[str, Any] = {
    "type": "iot",
    "window": 1500,
    "flash": [
        {"query": "What is the temperature in seattle now?", "choices": DECADES},
        # Asked only while the window has a reading out of its range, and then over every second batch.
        {"query": "Is it hot or cold?", "choices": ["hot", "cold"], "when": "threshold_breaches > 0", "every": 2},
    ],
}


def readings() -> Iterator[tuple[dict[str, Any], ...]]:
    """Both thermometers, hour by hour."""
    columns = []
    for name, (path, lo, hi) in SENSORS.items():
        rows = csv.DictReader(Path(f"{DATA}/{path}").read_text().splitlines())
        columns.append([{"sid": name, "val": float(row["temp"]), "lo": lo, "hi": hi} for row in rows])
    return islice(cycle(zip(*columns, strict=False)), JULY, None)


async def push(http: aiohttp.ClientSession, session: str) -> None:
    for hour in readings():
        async with http.post(f"/v1/sessions/{session}/push", json={"data": hour}):
            await asyncio.sleep(PAUSE)


async def watch(http: aiohttp.ClientSession, session: str) -> None:
    async with http.get(f"/v1/sessions/{session}/events", timeout=aiohttp.ClientTimeout(sock_read=60)) as events:
        async for line in events.content:
            if line.startswith(b"data: ") and (answer := json.loads(line[6:])).get("changed"):
                print(f"version {answer['data_version']}: {answer['query']} {answer['value']}", flush=True)


async def main(seconds: float) -> None:
    async with aiohttp.ClientSession(URL, headers=HEADERS, raise_for_status=True) as http:
        async with http.post("/v1/sessions", json=SESSION) as created:
            session = (await created.json())["id"]
        print(f"watch it at {URL}/dashboard#/{session}", flush=True)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds), asyncio.TaskGroup() as tasks:
                    tasks.create_task(push(http, session))
                    tasks.create_task(watch(http, session))
        finally:
            await http.delete(f"/v1/sessions/{session}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    try:
        with suppress(KeyboardInterrupt):
            asyncio.run(main(parser.parse_args().seconds))
    except aiohttp.ClientConnectionError:
        sys.exit(f"no server answers at {URL}; start one with `make serve`, or name another in ASKAHEAD_URL")
