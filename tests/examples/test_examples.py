"""The examples, as processes of their own against a real server."""

from __future__ import annotations

import os
import re
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers import FAST, Server, serving
from tests.valkeys import free_port

FOLDER = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(FOLDER.glob("*.py"))
FEEDS = {
    "market_ticks": "candles",
    "sensor_telemetry": "readings",
    "patient_vitals": "measurements",
    "log_events": "events",
}
KEY = "a-key-of-ours"

each = pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(FAST, tmp_path_factory.mktemp("open")) as server:
        yield server


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(FAST, tmp_path_factory.mktemp("locked"), "--api-key", KEY) as server:
        yield server


def start(script: Path, url: str, seconds: float, key: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(script), "--seconds", str(seconds)],
        env=os.environ | {"ASKAHEAD_URL": url, "ASKAHEAD_API_KEY": key},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def told(output: str, url: str, script: Path) -> str:
    """The session that an example says it has made; what follows are answers to its questions."""
    first, *answers = output.splitlines()
    found = re.fullmatch(rf"watch it at {re.escape(url)}/dashboard#/(sess_\w+)", first)
    assert found, output
    standing = {one["query"]: one["choices"] for one in runpy.run_path(str(script))["SESSION"]["flash"]}
    versions: dict[str, int] = {}
    values: dict[str, str] = {}
    for line in answers:
        query = next(one for one in standing if f": {one} " in line)
        number, value = re.fullmatch(rf"version (\d+): {re.escape(query)} (.*)", line).groups()  # type: ignore[union-attr]
        assert value in standing[query]
        assert int(number) > versions.get(query, 0)
        assert value != values.get(query), "only what is new is printed"
        versions[query], values[query] = int(number), value
    assert len(answers) >= 2, output
    return found.group(1)


def test_there_are_four() -> None:
    assert {script.stem for script in SCRIPTS} == set(FEEDS)


@each
def test_it_is_short(script: Path) -> None:
    assert len(script.read_text().splitlines()) < 80


@each
def test_it_prints_answers_as_they_change_and_leaves_nothing_behind(script: Path, server: Server) -> None:
    process = start(script, server.url, 6)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    session = told(output, server.url, script)
    assert httpx.get(f"{server.url}/v1/sessions/{session}").status_code == 404


@each
def test_the_keyboard_ends_it_and_its_session(script: Path, locked: Server) -> None:
    process = start(script, locked.url, 600, KEY)
    assert process.stdout is not None
    output = "".join(process.stdout.readline() for _ in range(3))
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    session = told(output + rest, locked.url, script)
    answer = httpx.get(f"{locked.url}/v1/sessions/{session}", headers={"x-api-key": KEY})
    assert answer.status_code == 404


@each
def test_without_a_server_it_says_what_to_do(script: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    process = start(script, url, 1)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (1, "")
    (line,) = errors.splitlines()
    assert url in line
    assert "make serve" in line


@each
def test_its_condition_comes_true_in_its_data_and_not_at_once(script: Path, server: Server) -> None:
    example = runpy.run_path(str(script))
    entries: Iterator[Any] = example[FEEDS[script.stem]]()
    with httpx.Client(base_url=server.url, timeout=30) as http:
        session = http.post("/v1/sessions", json=example["SESSION"]).raise_for_status().json()
        path = f"/v1/sessions/{session['id']}"
        answered: list[bool] = []
        while not any(answered):
            assert len(answered) < 200, "it never comes true"
            entry = next(entries)
            body = {"data": entry if isinstance(entry, tuple) else [entry]}
            total = http.post(f"{path}/push", json=body).raise_for_status().json()["total_pushed"]
            always, conditional = (one["id"] for one in http.get(f"{path}/flash").json()["data"])
            http.get(f"{path}/flash/{always}", params={"wait": 10, "after": total}).raise_for_status()
            answered.append("value" in http.get(f"{path}/flash/{conditional}").raise_for_status().json())
        http.delete(path).raise_for_status()
    assert len(answered) > 1
