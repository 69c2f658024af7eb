"""What ``askahead demo`` knows of its session, and how that looks. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from service.cli.showing import Shown, answer_cell, freshness, printable


@dataclass(frozen=True, slots=True)
class Question:
    """A Flash Query of the demo; the fields are those of the API."""

    query: str
    max_tokens: int = 16
    choices: tuple[str, ...] = ()

    def body(self) -> dict[str, object]:
        """As JSON for the API."""
        body: dict[str, object] = {"query": self.query, "max_tokens": self.max_tokens}
        return body | {"choices": list(self.choices)} if self.choices else body


@dataclass(slots=True)
class Board:
    """Everything the demo shows. All clock readings are of one monotonic clock, in seconds.

    Attributes:
        url: where the server listens.
        log_path: the server's log.
        questions: what is asked, in order.
        status: one sentence about what is going on.
        ready: the server answers; before that only the status is known.
        session_id: the session that is shown.
        line: the newest line pushed.
        pushed: lines pushed into the session.
        version: the session's data version.
        tokens: the session's length.
        latency: seconds from the last measured push to an answer over it.
        answers: the latest answer to each question.
    """

    url: str
    log_path: str
    questions: Sequence[Question]
    status: str = "starting the server"
    ready: bool = False
    session_id: str = ""
    line: str = ""
    pushed: int = 0
    version: int = 0
    tokens: int = 0
    latency: float | None = None
    answers: dict[str, Shown] = field(default_factory=dict)
    _sent: dict[int, float] = field(default_factory=dict)

    @property
    def page(self) -> str:
        """Where the dashboard shows the session."""
        return f"{self.url}/dashboard#/{self.session_id}"

    def begin(self, session_id: str, status: str) -> None:
        """A new session starts; its answers replace the old ones as they come."""
        self.session_id, self.status, self.ready = session_id, status, True
        self.pushed = self.version = self.tokens = 0
        self._sent.clear()

    def acknowledged(self, ack: Mapping[str, Any], line: str, sent: float) -> None:
        """A push was accepted.

        Args:
            ack: the server's acknowledgement.
            line: the last line pushed.
            sent: clock reading before the push.
        """
        self.line, self.pushed = line, ack["total_pushed"]
        # What waits is read as one batch. Older entries that are not resident yet are being read, as the batch before.
        version = ack["data_version"] + (1 if ack["pending"] == ack["pushed"] else 2)
        self._sent.setdefault(version, sent)

    def updated(self, event: Mapping[str, Any]) -> None:
        """A ``data_updated`` event."""
        self.version, self.tokens = event["data_version"], event["tokens"]

    def answered(self, event: Mapping[str, Any], now: float) -> bool:
        """A ``flash_ready`` event. Returns whether the answer differs from the one before."""
        version, question = event["data_version"], event["query"]
        # The event of a version may come before the one that says that it is there.
        self.version = max(self.version, version)
        if (sent := self._sent.get(version)) is not None:
            self.latency = now - sent
        for old in [other for other in self._sent if other < version]:
            del self._sent[old]
        before = self.answers.get(question)
        shown = Shown.of(event, now)
        self.answers[question] = shown
        return before is None or before.value != shown.value


def try_it(board: Board, *, key: bool) -> str:
    """A command that asks the demo's session; ``key``: the server wants ``ASKAHEAD_API_KEY``."""
    headers = "-H 'content-type: application/json'" + (' -H "x-api-key: $ASKAHEAD_API_KEY"' if key else "")
    body = '{"prompt": "What is the latest temperature?", "max_tokens": 16}'
    return f"curl -s {headers} -d '{body}' {board.url}/v1/sessions/{board.session_id}/generate"


def screen(board: Board, now: float, *, hint: str = "", spinner: Spinner | None = None) -> RenderableType:
    """The whole display.

    Args:
        board: what is known.
        now: clock reading, for ages.
        hint: a command to try.
        spinner: shown while the server starts; one object throughout, as it keeps its own time.
    """
    log = Text(f"server log: {board.log_path}", style="dim")
    if not board.ready:
        waiting = spinner or Spinner("dots")
        waiting.update(text=Text(printable(board.status)))
        return Group(waiting, log)
    return Group(
        Text.assemble(("Askahead demo  ", "bold"), printable(board.status)),
        Text.assemble(("watch it live: ", "bold"), (board.page, f"bold cyan link {board.page}")),
        _stream(board),
        _answers(board, now),
        Text.assemble(("try it: ", "bold"), hint, overflow="fold"),
        log,
    )


def _stream(board: Board) -> RenderableType:
    latency = "–" if board.latency is None else f"{board.latency * 1000:.0f} ms"
    grid = Table.grid(padding=(0, 3))
    grid.add_row(
        Text.assemble(("data  ", "dim"), (printable(board.line), "bold cyan")),
        Text.assemble(("pushed ", "dim"), str(board.pushed)),
        Text.assemble(("tokens ", "dim"), str(board.tokens)),
        Text.assemble(("version ", "dim"), str(board.version)),
        Text.assemble(("push to answer ", "dim"), (latency, "bold")),
    )
    return grid


def _answers(board: Board, now: float) -> Table:
    table = Table(box=box.SIMPLE_HEAD, expand=True, pad_edge=False)
    table.add_column("question", ratio=2)
    table.add_column("answer", ratio=3)
    for title in ("confidence", "version", "age", "fresh"):
        table.add_column(title, justify="right", no_wrap=True)
    for question in board.questions:
        shown = board.answers.get(question.query)
        if shown is None:
            table.add_row(escape(question.query), Text("…", style="dim"), "", "", "", "")
            continue
        table.add_row(
            escape(question.query),
            answer_cell(shown),
            f"{shown.confidence:.2f}",
            str(shown.version),
            f"{max(0.0, now - shown.arrived):.1f} s",
            freshness(shown.version == board.version),
        )
    return table
