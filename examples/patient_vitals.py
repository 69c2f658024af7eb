"""Vital signs: a made-up patient who develops an infection and recovers. With httpx: pip install httpx."""

import argparse
import asyncio
import json
import os
import random
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from typing import Any

import httpx

URL = os.environ.get("ASKAHEAD_URL", "http://127.0.0.1:8080")
HEADERS = {"x-api-key": os.environ.get("ASKAHEAD_API_KEY", "")}
PAUSE = 0.5
WELL = {"hr": 72.0, "bp_s": 122.0, "bp_d": 78.0, "spo2": 97.0, "temp": 36.8}
SEPTIC = {"hr": 124.0, "bp_s": 92.0, "bp_d": 54.0, "spo2": 88.5, "temp": 39.4}
NOISE = {"hr": 2.0, "bp_s": 3.0, "bp_d": 2.0, "spo2": 0.2, "temp": 0.05}

# Over the window's statistics too, only while there is a fever among them, and at most once in three seconds.
IN_FEVER = {"when": "alerts.fever_episodes > 0", "min_interval": 3, "with_stats": "window"}
SESSION: dict[str, Any] = {
    "type": "vitals",
    "window": 1200,
    "flash": [
        {"query": "What is the temperature now?", "choices": [f"The temperature is {n}" for n in range(36, 40)]},
        {"query": "Is the patient stable or critical?", "choices": ["stable", "critical"], **IN_FEVER},
    ],
}


def measurements() -> Iterator[dict[str, Any]]:
    """One a minute: forty minutes on the way to being well, forty on the way to being ill, and so on."""
    chance, now = random.Random(7), WELL
    for minute in count():
        goal = SEPTIC if minute % 80 >= 40 else WELL
        now = {name: was + 0.12 * (goal[name] - was) + chance.gauss(0, NOISE[name]) for name, was in now.items()}
        yield {name: round(value, 1) for name, value in now.items()}


async def push(http: httpx.AsyncClient, session: str) -> None:
    for measurement in measurements():
        (await http.post(f"/v1/sessions/{session}/push", json={"data": [measurement]})).raise_for_status()
        await asyncio.sleep(PAUSE)


async def watch(http: httpx.AsyncClient, session: str) -> None:
    async with http.stream("GET", f"/v1/sessions/{session}/events") as events:
        events.raise_for_status()
        async for line in events.aiter_lines():
            if line.startswith("data: ") and (answer := json.loads(line[6:])).get("changed"):
                print(f"version {answer['data_version']}: {answer['query']} {answer['value']}", flush=True)


async def main(seconds: float) -> None:
    async with httpx.AsyncClient(base_url=URL, headers=HEADERS, timeout=60) as http:
        session = (await http.post("/v1/sessions", json=SESSION)).raise_for_status().json()["id"]
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
    except httpx.ConnectError:
        sys.exit(f"no server answers at {URL}; start one with `make serve`, or name another in ASKAHEAD_URL")
