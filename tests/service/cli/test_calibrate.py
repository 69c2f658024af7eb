"""``askahead calibrate`` against a real server process, and what it makes of what it finds."""

from __future__ import annotations

import csv
import io
import json
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from service.cli.calibrate.curve import Observation
from service.cli.calibrate.plot import draw
from service.cli.calibrate.replay import Target
from service.cli.calibrate.report import Report
from service.cli.main import app
from tests.servers import Server

PROMPT = "Which way?"
CANDIDATES = ("rising", "falling", "steady", "volatile", "unusual", "yes")
ENTRIES = [f"price {number}" for number in range(30)]


@pytest.fixture
def stream(tmp_path: Path) -> Path:
    path = tmp_path / "stream.jsonl"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in ENTRIES))
    return path


def calibrate(server: Server, stream: Path, *more: str) -> Result:
    candidates = [flag for text in CANDIDATES for flag in ("--fast-answer", text)]
    return CliRunner().invoke(
        app, ["calibrate", str(stream), "--url", server.url, "--prompt", PROMPT, *candidates, *more]
    )


def succeed(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    return result


def observed(http: httpx.Client, batch: int = 1) -> list[dict[str, Any]]:
    """The same by hand: the session's own ready position instead of fast answers, whose tokens are bytes here."""
    session = f"/v1/sessions/{http.post('/v1/sessions', json={'pre_decode': True}).json()['id']}"
    found = []
    for start in range(0, len(ENTRIES), batch):
        http.post(f"{session}/push", json={"data": ENTRIES[start : start + batch]})
        while True:
            state = http.get(session).json()
            if state["ready"] and not state["pending"]:
                break
            time.sleep(0.01)
        meant = [text for text in CANDIDATES if text.encode()[0] == state["ready_token"]]
        full = http.post(f"{session}/generate", json={"prompt": PROMPT, "temperature": 0, "max_tokens": 16}).json()
        found.append({"fast": meant[0] if meant else None, "gap": state["ready_gap"], "full": full["text"]})
    http.delete(session)
    return found


@pytest.mark.parametrize("batch", [1, 4])
def test_the_report_is_what_the_server_does(server: Server, http: httpx.Client, stream: Path, batch: int) -> None:
    report = json.loads(succeed(calibrate(server, stream, "--json", "--batch", str(batch))).stdout)
    expected = observed(http, batch)
    assert report["questions"] == len(expected) == -(-len(ENTRIES) // batch)
    assert (report["prompt"], report["fast_answer"], report["default"]) == (PROMPT, list(CANDIDATES), 2.0)
    for point in report["points"]:
        fast = [one for one in expected if one["fast"] is not None and one["gap"] >= point["threshold"]]
        wrong = [one for one in fast if one["fast"] != one["full"]]
        assert point["coverage_count"] == len(fast)
        assert point["coverage"] == pytest.approx(len(fast) / len(expected))
        assert point["false_accepts_count"] == len(wrong)
        assert point["false_accepts"] == (pytest.approx(len(wrong) / len(fast)) if fast else None)
    assert 0 < report["points"][0]["coverage_count"] < len(expected)
    assert report["points"][-1]["coverage_count"] < report["points"][0]["coverage_count"]
    assert http.get("/v1/sessions").json()["data"] == [], "the session it used is gone"


def test_the_table_and_the_csv_say_the_same(server: Server, stream: Path) -> None:
    table = succeed(calibrate(server, stream)).stdout
    rows = list(csv.DictReader(io.StringIO(succeed(calibrate(server, stream, "--csv")).stdout)))
    assert len(rows) == 33
    default = next(row for row in rows if float(row["threshold"]) == 2.0)
    (line,) = [line for line in table.splitlines() if "default" in line]
    share = f"{float(default['coverage']):.1%}".replace("%", " %")
    assert line.split()[:4] == ["2.00", *share.split(), default["coverage_count"]]
    assert "30 questions." in table


def test_the_plot_is_a_picture(server: Server, stream: Path, tmp_path: Path) -> None:
    plot = tmp_path / "curve.svg"
    succeed(calibrate(server, stream, "--plot", str(plot), "--max-false-accepts", "0.99"))
    picture = ElementTree.fromstring(plot.read_text())
    texts = [element.text or "" for element in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert "gap_threshold, least logit gap in nats" in texts
    assert "share" in texts
    assert PROMPT in texts
    assert "default 2" in texts
    assert any(text.startswith("chosen ") for text in texts)


@pytest.mark.parametrize("registered", [False, True])
def test_the_choice_is_stored_on_the_query_of_that_text(
    server: Server, http: httpx.Client, stream: Path, registered: bool
) -> None:
    http.post("/v1/sessions", json={"id": "live", "pre_decode": True})
    try:
        if registered:
            http.post("/v1/sessions/live/flash", json={"query": "Other?"})
            http.post("/v1/sessions/live/flash", json={"query": PROMPT, "max_tokens": 7})
        result = succeed(calibrate(server, stream, "--json", "--max-false-accepts", "0.99", "--store", "live"))
        chosen = json.loads(result.stdout)["chosen"]
        assert chosen is not None
        assert f"stored gap_threshold {chosen:g}" in result.stderr
        (query,) = [q for q in http.get("/v1/sessions/live/flash").json()["data"] if q["query"] == PROMPT]
        assert (query["fast_answer"], query["gap_threshold"]) == (list(CANDIDATES), chosen)
        assert query["max_tokens"] == (7 if registered else 32)
    finally:
        http.delete("/v1/sessions/live")


def test_the_choice_is_stored_on_the_query_that_is_named(server: Server, http: httpx.Client, stream: Path) -> None:
    http.post("/v1/sessions", json={"id": "live", "pre_decode": True, "flash": [{"query": "Trend?"}]})
    try:
        succeed(calibrate(server, stream, "--max-false-accepts", "0.99", "--store", "live:1"))
        (query,) = http.get("/v1/sessions/live/flash").json()["data"]
        assert (query["query"], query["fast_answer"]) == ("Trend?", list(CANDIDATES))
    finally:
        http.delete("/v1/sessions/live")


def test_nothing_is_stored_that_is_not_good_enough(server: Server, http: httpx.Client, stream: Path) -> None:
    http.post("/v1/sessions", json={"id": "live", "pre_decode": True})
    try:
        result = calibrate(server, stream, "--store", "live")
        assert result.exit_code == 1
        assert "nothing was stored" in result.stderr
        assert "at least 73 fast answers" in " ".join(result.stderr.split())
        assert http.get("/v1/sessions/live/flash").json()["data"] == []
    finally:
        http.delete("/v1/sessions/live")


@pytest.mark.parametrize(("target", "message"), [("nowhere", "nowhere"), ("live:9", "flash query 9")])
def test_a_target_that_is_not_there_is_said_before_the_replay(
    server: Server, http: httpx.Client, stream: Path, target: str, message: str
) -> None:
    http.post("/v1/sessions", json={"id": "live"})
    try:
        result = calibrate(server, stream, "--store", target)
        assert result.exit_code == 4
        assert "(404)" in result.stderr
        assert message in result.stderr
        assert result.stdout == ""
    finally:
        http.delete("/v1/sessions/live")


def test_a_recording_longer_than_the_context_is_used_as_far_as_it_fits(server: Server, stream: Path) -> None:
    stream.write_text((json.dumps("x" * 900) + "\n") * 6)
    result = succeed(calibrate(server, stream, "--json"))
    assert 0 < json.loads(result.stdout)["questions"] < 6
    assert "stopped after" in result.stderr


def test_a_long_recording_goes_through_a_window(server: Server, stream: Path) -> None:
    stream.write_text((json.dumps("x" * 900) + "\n") * 6)
    result = succeed(calibrate(server, stream, "--json", "--window", "2500"))
    assert json.loads(result.stdout)["questions"] == 6
    assert "stopped after" not in result.stderr


def test_a_typed_recording_goes_into_a_typed_session(server: Server, stream: Path) -> None:
    bars = [{"o": 1.0, "h": 2.0, "l": 0.5, "c": 1.0 + number / 10, "v": 10.0} for number in range(4)]
    stream.write_text("".join(json.dumps({"data": bar}) + "\n" for bar in bars))
    report = json.loads(succeed(calibrate(server, stream, "--type", "ohlcv", "--json")).stdout)
    assert report["questions"] == len(bars)
    result = calibrate(server, stream, "--type", "no-such-type")
    assert result.exit_code == 4
    assert "(400)" in result.stderr


def test_a_server_that_is_not_there_is_said(stream: Path) -> None:
    flags = ["--prompt", "x", "--fast-answer", "y"]
    for url, code, message in (("http://127.0.0.1:9", 3, "askahead serve"), ("nonsense", 2, "is not a URL")):
        result = CliRunner().invoke(app, ["calibrate", str(stream), *flags, "--url", url])
        assert result.exit_code == code
        assert message in result.stderr
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "flags",
    [
        ["--max-false-accepts", "0"],
        ["--max-false-accepts", "nan"],
        ["--json", "--csv"],
        ["--store", ":1"],
        ["--store", "live:x"],
        ["--batch", "0"],
    ],
)
def test_bad_flags_are_refused(stream: Path, flags: list[str]) -> None:
    result = CliRunner().invoke(app, ["calibrate", str(stream), "--prompt", "x", "--fast-answer", "y", *flags])
    assert result.exit_code == 2


@pytest.mark.parametrize("content", ["", "\n", '{"close": 1}\n', "x\n"])
def test_a_recording_of_no_use_ends_the_replay(server: Server, http: httpx.Client, stream: Path, content: str) -> None:
    stream.write_text(content)
    result = calibrate(server, stream)
    assert result.exit_code == 1
    assert str(stream) in result.stderr
    assert http.get("/v1/sessions").json()["data"] == []


def test_targets() -> None:
    assert Target.parse("live") == Target("live", None)
    assert Target.parse("live:12") == Target("live", 12)


# Reports


def report(*observations: Observation, most: float = 0.05) -> Report:
    return Report.of("Which way?", ["up", "down"], most, observations)


RIGHT, WRONG, NONE = Observation("up", 5.0, "Up."), Observation("up", 1.0, "down"), Observation(None, 0.0, "up")


def test_a_verdict_names_the_threshold() -> None:
    found = report(*[RIGHT] * 90, *[WRONG] * 10, *[NONE] * 100)
    assert found.chosen is not None
    assert found.chosen.threshold == 5.0
    assert "gap_threshold 5 answers 45.0 % of questions fast, with at most 4.1 % false accepts" in found.verdict


def test_a_verdict_says_why_there_is_none() -> None:
    assert "at least 73 fast answers" in report(*[RIGHT] * 72).verdict
    assert "No question had a fast answer" in report(NONE).verdict
    assert report(*[RIGHT] * 73).chosen is not None


@pytest.mark.parametrize("observations", [(NONE,), (RIGHT, WRONG, NONE), (RIGHT,) * 100])
def test_every_report_can_be_shown(observations: tuple[Observation, ...]) -> None:
    found = report(*observations)
    console = Console(file=io.StringIO(), width=100)
    with console.capture() as captured:
        console.print(found.table())
    assert "default" in captured.get()
    assert len(list(csv.reader(io.StringIO(found.csv())))) == 34
    assert json.loads(json.dumps(found.json()))["questions"] == len(observations)
    picture = ElementTree.fromstring(
        draw(found.points, title="Up & <away>?\0\n" * 30, chosen=found.chosen, default=2.0)
    )
    assert picture[0].text == " ".join(["Up & <away>?"] * 30)
