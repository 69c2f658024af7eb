from __future__ import annotations

import asyncio
import importlib.metadata
import os
import re
import signal
import sys
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console

from service.cli.demo.player import QUESTIONS, read_lines
from service.cli.demo.server import DemoError
from service.cli.demo.view import Board, Question, screen, try_it
from service.cli.showing import change_line, printable

FREE = Question("What is next?", max_tokens=4)
CHOICE = Question("Cool or warm?", choices=("cool", "warm"))


def _board() -> Board:
    board = Board("http://127.0.0.1:1", "/somewhere/demo.log", (FREE, CHOICE))
    board.begin("demo", "streaming")
    return board


def _ack(total: int, *, version: int, pushed: int = 1, pending: int = 1) -> dict[str, Any]:
    return {"total_pushed": total, "data_version": version, "pushed": pushed, "pending": pending}


def _ready(version: int, value: str = "61.0", question: Question = FREE, **more: Any) -> dict[str, Any]:
    return {"id": 1, "query": question.query, "value": value, "data_version": version, "confidence": 1.5, **more}


def _drawn(board: Board, now: float = 0.0, hint: str = "") -> str:
    console = Console(file=StringIO(), width=120, color_system=None)
    with console.capture() as captured:
        console.print(screen(board, now, hint=hint))
    return captured.get()


# State


def test_latency_is_from_the_push_to_an_answer_over_it() -> None:
    board = _board()
    board.acknowledged(_ack(24, version=0, pushed=24, pending=24), "a line", sent=10.0)
    board.answered(_ready(1), now=10.4)
    assert board.latency == pytest.approx(0.4)
    assert (board.line, board.pushed) == ("a line", 24)


def test_a_line_behind_a_batch_that_is_being_read_belongs_to_the_version_after_it() -> None:
    board = _board()
    board.acknowledged(_ack(1, version=0), "first", sent=1.0)
    board.acknowledged(_ack(2, version=0, pending=2), "second", sent=2.0)
    board.answered(_ready(1), now=3.0)
    assert board.latency == pytest.approx(2.0)
    board.answered(_ready(2), now=4.0)
    assert board.latency == pytest.approx(2.0)


def test_lines_of_one_version_are_measured_by_the_one_that_waited_longest() -> None:
    board = _board()
    for total, sent in ((2, 1.0), (3, 2.0)):
        board.acknowledged(_ack(total, version=0, pending=total), "line", sent=sent)
    board.answered(_ready(2), now=5.0)
    assert board.latency == pytest.approx(4.0)


def test_an_answer_over_skipped_data_measures_nothing_wrong() -> None:
    board = _board()
    board.acknowledged(_ack(1, version=0), "line", sent=1.0)
    board.answered(_ready(7), now=9.0)
    assert board.latency is None


def test_only_a_different_answer_is_a_change() -> None:
    board = _board()
    assert board.answered(_ready(1), now=0.0)
    assert not board.answered(_ready(2), now=1.0)
    assert board.answered(_ready(3, "62.0"), now=2.0)


def test_an_answer_may_come_before_news_of_its_version() -> None:
    board = _board()
    board.answered(_ready(3), now=0.0)
    assert board.version == 3
    board.updated({"data_version": 3, "tokens": 70, "pending": 0})
    assert (board.version, board.tokens) == (3, 70)


def test_a_new_session_starts_from_nothing() -> None:
    board = _board()
    board.acknowledged(_ack(9, version=4), "line", sent=1.0)
    board.begin("demo-2", "a new session")
    assert (board.session_id, board.pushed, board.version, board.tokens) == ("demo-2", 0, 0, 0)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\x1b[2Jb", "a [2Jb"), ("two\nlines", "two lines"), ("  61.0\n", "61.0"), ("x" * 300, "x" * 199 + "…")],
)
def test_what_is_shown_is_one_harmless_line(text: str, shown: str) -> None:
    assert printable(text) == shown


# Rendering


def test_before_it_is_ready_the_server_has_the_word() -> None:
    board = Board("http://127.0.0.1:1", "/somewhere/demo.log", (FREE,), status="loading a model")
    drawn = _drawn(board)
    assert "loading a model" in drawn
    assert "/somewhere/demo.log" in drawn
    assert FREE.query not in drawn


def test_the_dashboards_address_is_above_the_answers() -> None:
    board = _board()
    drawn = _drawn(board).splitlines()
    assert drawn[1].strip() == "watch it live: http://127.0.0.1:1/dashboard#/demo"
    board.begin("demo-2", "another")
    assert "/dashboard#/demo-2" in _drawn(board)


def test_the_table_shows_answers_with_their_age_and_freshness() -> None:
    board = _board()
    board.answered(_ready(1), now=10.0)
    row = next(line for line in _drawn(board, now=12.5).splitlines() if FREE.query in line)
    assert row.split()[-5:] == ["1.50", "1", "2.5", "s", "●"]
    board.updated({"data_version": 2, "tokens": 80, "pending": 0})
    row = next(line for line in _drawn(board, now=12.5).splitlines() if FREE.query in line)
    assert row.split()[-1] == "○"


def test_choices_are_bars_of_their_share() -> None:
    board = _board()
    probabilities = {"cool": 0.01, "warm": 0.03}
    board.answered(_ready(1, "warm", CHOICE, probabilities=probabilities, mass=0.04), now=0.0)
    cool, warm = (
        next(line for line in _drawn(board).splitlines() if f"{choice} " in line and "%" in line)
        for choice in CHOICE.choices
    )
    assert "25%" in cool
    assert "75%" in warm
    assert (cool.count("█"), warm.count("█")) == (4, 12)


def test_bars_are_labelled_with_what_tells_choices_apart() -> None:
    board = _board()
    probabilities = {"It will be 60 F": 0.3, "It will be 70 F": 0.1}
    board.answered(_ready(1, "It will be 60 F", CHOICE, probabilities=probabilities, mass=0.4), now=0.0)
    drawn = _drawn(board)
    assert "60 F █" in drawn
    assert "It will be" not in drawn


def test_text_of_models_and_data_is_no_markup() -> None:
    board = _board()
    board.acknowledged(_ack(1, version=0), "[bold]line[/nothing]", sent=0.0)
    board.answered(_ready(1, "[red]answer[/nothing]"), now=0.0)
    drawn = _drawn(board, hint="curl '[/x]'")
    for text in ("[bold]line[/nothing]", "[red]answer[/nothing]", "curl '[/x]'"):
        assert text in drawn


def test_a_change_is_one_line_of_plain_text() -> None:
    assert change_line(_ready(3, "61.0\n"), "12:00:00") == "12:00:00  v3    What is next?  61.0  (confidence 1.50)"


def test_the_hint_names_the_session_and_the_key() -> None:
    board = _board()
    assert f"{board.url}/v1/sessions/demo/generate" in try_it(board, key=False)
    assert "x-api-key" not in try_it(board, key=False)
    assert "$ASKAHEAD_API_KEY" in try_it(board, key=True)


# Data


def test_the_data_is_a_year_of_hours_from_summer_on() -> None:
    lines = read_lines()
    assert len(lines) > 8000
    assert lines[0].startswith("2010/07/12 00:00 temp ")
    assert lines[-1].startswith("2010/07/11 23:00 temp ")
    assert all(re.fullmatch(r"2010/\d\d/\d\d \d\d:00 temp \d+\.\d F", line) for line in lines)


def test_missing_data_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    with pytest.raises(DemoError, match=r"pip install 'askahead\[demo\]'"):
        read_lines()


# The whole


class _Demo:
    """``askahead demo`` as a process of its own, over a server with the in-process engine."""

    _PROGRAM = """
import json, sys
from pathlib import Path
from service.cli.demo.player import run
from service.cli.failures import finish
command, data_dir, rate, seconds = json.loads(sys.argv[1])
finish(run(command, data_dir=Path(data_dir), rate=rate, seconds=seconds))
"""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir

    async def start(self, command: Sequence[str], *, seconds: float | None) -> asyncio.subprocess.Process:
        settings = orjson.dumps([list(command), str(self._data_dir), 20, seconds]).decode()
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            self._PROGRAM,
            settings,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=Path(__file__).parents[3],
            env={**os.environ, "TMPDIR": str(self._data_dir)},
        )


SERVER = (sys.executable, "-m", "tests.engine.serve")


@pytest.fixture
def demo(tmp_path: Path) -> _Demo:
    return _Demo(tmp_path)


async def test_it_ends_by_itself_and_has_printed_answers(demo: _Demo) -> None:
    process = await demo.start(SERVER, seconds=10)
    out, err = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, err.decode()
    assert err == b""
    text = out.decode()
    for question in QUESTIONS:
        assert question.query in text
    lines = text.splitlines()
    address = next(number for number, line in enumerate(lines) if re.fullmatch(r"watch it live: http:.*#/demo", line))
    assert address < next(number for number, line in enumerate(lines) if QUESTIONS[0].query in line)
    # A byte of text is a token there, so that the context is soon full.
    assert "new session from the newest" in text
    assert text.splitlines()[-1] == "stopping the server"
    assert "\x1b" not in text


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_cleanly(demo: _Demo, name: signal.Signals) -> None:
    process = await demo.start(SERVER, seconds=None)
    assert process.stdout is not None
    async with asyncio.timeout(120):
        while QUESTIONS[0].query not in (await process.stdout.readline()).decode():
            assert process.returncode is None
        process.send_signal(name)
        _, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")


async def test_a_server_that_dies_early_is_quoted(demo: _Demo) -> None:
    broken = (sys.executable, "-c", "import sys; print('no such model', file=sys.stderr); sys.exit(3)")
    process = await demo.start(broken, seconds=None)
    _, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1
    assert "exit code 3" in err.decode()
    assert "no such model" in err.decode()
    assert "Traceback" not in err.decode()
