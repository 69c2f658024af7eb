"""What a watcher knows of sessions and their answers, and how that looks. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from service.cli.client import Event
from service.cli.showing import Shown, answer_cell, freshness, printable, since, table


@dataclass(slots=True)
class Watched:
    """A session.

    Attributes:
        version: its data version.
        answers: by the number of the query, with the question.
        told: the value last told of each query.
        gone: it was deleted.
    """

    version: int = 0
    answers: dict[int, tuple[str, Shown]] = field(default_factory=dict)
    told: dict[int, str] = field(default_factory=dict)
    gone: bool = False


class Board:
    """All that is watched. Clock readings are Unix seconds."""

    def __init__(self) -> None:
        self.sessions: dict[str, Watched] = {}
        self.remark = ""

    def heard(self, event: Event) -> bool:
        """Take in an event. Returns whether it is an answer that differs from the one before."""
        watched = self.sessions.setdefault(event.session_id, Watched())
        self.remark = ""
        match event.kind:
            case "connected":
                watched.gone = False
                watched.version = event.data["data_version"]
                if not event.data.get("resumed"):
                    # All answers there are follow.
                    watched.answers.clear()
            case "data_updated":
                watched.version = event.data["data_version"]
            case "deleted":
                watched.gone = True
            case "flash_ready":
                return self._answered(watched, event.data)
        return False

    @staticmethod
    def _answered(watched: Watched, data: Mapping[str, Any]) -> bool:
        # The event of a version may come before the one that says that it is there.
        watched.version = max(watched.version, data["data_version"])
        watched.answers[data["id"]] = (printable(data["query"]), Shown.of(data, data["evaluated_at"]))
        changed: bool = watched.told.get(data["id"]) != data["value"]
        watched.told[data["id"]] = data["value"]
        return changed

    def screen(self, now: float) -> RenderableType:
        """The live table."""
        shown = table(("session", "question", "answer"), ("confidence", "version", "age", "fresh"))
        for session_id, watched in sorted(self.sessions.items()):
            name = Text(session_id, style="dim strike" if watched.gone else "bold")
            if not watched.answers:
                shown.add_row(name, Text("no answers yet", style="dim"), "", "", str(watched.version), "", "")
            for query, answer in watched.answers.values():
                shown.add_row(
                    name,
                    escape(query),
                    answer_cell(answer),
                    f"{answer.confidence:.2f}",
                    str(answer.version),
                    since(now - answer.arrived),
                    freshness(not watched.gone and answer.version == watched.version),
                )
                name = Text()
        remark = Text(self.remark or "Ctrl-C ends it", style="yellow" if self.remark else "dim")
        return Group(shown, remark)
