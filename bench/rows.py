"""What a measure finds: rows with their targets, and series to plot."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure must reach.

    Attributes:
        limit: the figure at which it is just met.
        at_least: larger is better.
    """

    limit: float
    at_least: bool = False

    def met(self, figure: float) -> bool:
        """Whether ``figure`` is good enough."""
        return figure >= self.limit if self.at_least else figure <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:,g}"


def at_most(limit: float) -> Target:
    """A target for what should be small."""
    return Target(limit)


def at_least(limit: float) -> Target:
    """A target for what should be large."""
    return Target(limit, at_least=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the report.

    Attributes:
        measure: what was measured.
        value: in ``unit``.
        against: what it is compared with; empty where it stands alone.
        baseline: the same of that, in ``unit``.
        ratio: of the value to the baseline; the median of the rounds' ratios where there were rounds.
        target: for the ratio, or for the value where there is no ratio.
    """

    measure: str
    value: float
    unit: str
    against: str = ""
    baseline: float | None = None
    ratio: float | None = None
    target: Target | None = None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        return None if self.target is None else self.target.met(self.value if self.ratio is None else self.ratio)


@dataclass(frozen=True, slots=True)
class Series:
    """Lines of one plot: for each label its points (x, y)."""

    title: str
    x: str
    y: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    logarithmic: bool = False


@dataclass(slots=True)
class Result:
    """What a family found.

    Attributes:
        rows: in the order in which they are shown.
        series: by the name of their file.
        rounds: how often each side was visited.
    """

    rows: list[Row] = field(default_factory=list)
    series: dict[str, Series] = field(default_factory=dict)
    rounds: int = 0


def compared(
    measure: str, ours: Sequence[float], theirs: Sequence[float], unit: str, against: str, target: Target | None = None
) -> Row:
    """A row about two sides that were measured in the same rounds, in order.

    The ratio is the median of the rounds' ratios, so that what slows the machine for a while slows both.
    """
    return Row(
        measure=measure,
        value=statistics.median(ours),
        unit=unit,
        against=against,
        baseline=statistics.median(theirs),
        ratio=statistics.median(our / their for our, their in zip(ours, theirs, strict=True)),
        target=target,
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of ``values`` that at least ``share`` (0 to 1) of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def milliseconds(seconds: Sequence[float]) -> list[float]:
    """The same in milliseconds."""
    return [second * 1e3 for second in seconds]
