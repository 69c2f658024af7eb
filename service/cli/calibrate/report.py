"""What was found, for people and for programs. Pure, no I/O."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from flashquery.ready import GAP_THRESHOLD
from service.cli.calibrate.curve import Observation, Point, Share, choose, curve, needed, turns


@dataclass(frozen=True, slots=True)
class Report:
    """A finished calibration.

    Attributes:
        prompt: what was asked.
        candidates: what a fast answer may be.
        most: the bound that false accepts were to stay below, 0 to 1.
        points: the curve.
        chosen: the point that was chosen, None if none stays below the bound.
    """

    prompt: str
    candidates: Sequence[str]
    most: float
    points: Sequence[Point]
    chosen: Point | None

    @classmethod
    def of(cls, prompt: str, candidates: Sequence[str], most: float, observations: Sequence[Observation]) -> Report:
        """What observations amount to."""
        points = curve(observations)
        return cls(prompt, candidates, most, points, choose(points, most))

    @property
    def verdict(self) -> str:
        """One or two sentences: what to set, or why nothing can be recommended."""
        if self.chosen is not None:
            return (
                f"gap_threshold {self.chosen.threshold:g} answers {_percent(self.chosen.coverage.value)} of questions "
                f"fast, with at most {_percent(self.chosen.false_accepts.interval[1])} false accepts (95 % confidence)."
            )
        covered = self.points[0].coverage.count
        if not covered:
            return (
                "No question had a fast answer: where a reply begins, the model never was about to say one of the "
                "candidates. A system prompt that says what to reply with one word helps."
            )
        return (
            f"No threshold is shown to keep false accepts below {_percent(self.most)}. That takes at least "
            f"{needed(self.most)} fast answers, all of them right; there were {covered}. A longer recording, a looser "
            "bound or a better system prompt helps."
        )

    def table(self) -> RenderableType:
        """For a terminal."""
        table = Table(
            box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, title=escape(self.prompt), title_justify="left"
        )
        for name in ("threshold", "coverage", "fast", "false accepts", "wrong", "95 % interval"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        kept = [GAP_THRESHOLD] if self.chosen is None else [GAP_THRESHOLD, self.chosen.threshold]
        for point in turns(self.points, kept):
            low, high = map(_percent, point.false_accepts.interval)
            default = "default" if point.threshold == GAP_THRESHOLD else ""
            table.add_row(
                f"{point.threshold:.2f}",
                _percent(point.coverage.value),
                str(point.coverage.count),
                _percent(point.false_accepts.value),
                str(point.false_accepts.count),
                f"{low} – {high}" if point.false_accepts.total else "",
                "chosen" if point is self.chosen else default,
                style="bold" if point is self.chosen else None,
            )
        return Group(table, f"{self.points[0].coverage.total} questions. {self.verdict}")

    def json(self) -> dict[str, Any]:
        """Everything, for programs."""
        return {
            "prompt": self.prompt,
            "fast_answer": list(self.candidates),
            "questions": self.points[0].coverage.total,
            "max_false_accepts": self.most,
            "default": GAP_THRESHOLD,
            "chosen": None if self.chosen is None else self.chosen.threshold,
            "points": [_row(point) for point in self.points],
        }

    def csv(self) -> str:
        """The curve, a row per threshold."""
        rows = [_row(point) for point in self.points]
        out = io.StringIO()
        writer = csv.DictWriter(out, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue()


def _row(point: Point) -> Mapping[str, float | int | None]:
    return {"threshold": point.threshold, **_share("coverage", point.coverage)} | _share(
        "false_accepts", point.false_accepts
    )


def _share(name: str, share: Share) -> dict[str, float | int | None]:
    low, high = share.interval
    return {f"{name}_count": share.count, name: share.value, f"{name}_low": low, f"{name}_high": high}


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}".replace("%", " %")
