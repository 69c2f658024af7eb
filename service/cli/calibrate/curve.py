"""Coverage against false accepts, threshold by threshold. Pure, no I/O."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flashquery.ready import GAP_THRESHOLD

THRESHOLDS = tuple(sorted({GAP_THRESHOLD, *(step / 4 for step in range(33))}))
"""What is tried, in nats: 0 to 8 in quarters. Below a quarter lies noise, and at 8 nats the second token has one chance
in three thousand against the first."""

# Of the standard normal distribution, so that intervals hold in 95 of 100 cases.
_Z95 = 1.959963984540054
# Signs and units stay: -5 is not 5.
_QUOTES = " \"'`*_()[]{}“”‘’„"
_ENDS = _QUOTES + ".,;:!?…。、！？"


@dataclass(frozen=True, slots=True)
class Observation:
    """One question, asked both ways.

    Attributes:
        fast: the candidate that was answered without the model, None if it had none to offer.
        gap: how sure it was: logit gap, in nats; 0 without a candidate.
        full: what the model answered.
    """

    fast: str | None
    gap: float
    full: str

    @property
    def agrees(self) -> bool:
        """Whether both answers are the same to a person."""
        return self.fast is not None and normal(self.fast) == normal(self.full)


def normal(text: str) -> str:
    """A text as it is compared: without regard to case, quotes, brackets and emphasis around it, punctuation at its
    end, and how much white space there is.
    """
    return " ".join(text.casefold().split()).lstrip(_QUOTES).rstrip(_ENDS)


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a whole, and how far a sample of this size can be trusted.

    Attributes:
        count: of the part.
        total: of the whole.
    """

    count: int
    total: int

    @property
    def value(self) -> float | None:
        """The share, 0 to 1; None of nothing."""
        return self.count / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval: where the true share is. Everything is possible of nothing."""
        if not self.total:
            return 0.0, 1.0
        share, weight = self.count / self.total, _Z95**2 / self.total
        middle = (share + weight / 2) / (1 + weight)
        reach = _Z95 * math.sqrt((share * (1 - share) + weight / 4) / self.total) / (1 + weight)
        # At the ends the formula is exact but for rounding.
        low = 0.0 if self.count == 0 else max(0.0, middle - reach)
        high = 1.0 if self.count == self.total else min(1.0, middle + reach)
        return low, high


@dataclass(frozen=True, slots=True)
class Point:
    """What a threshold does.

    Attributes:
        threshold: least logit gap that is taken, in nats.
        coverage: questions answered fast, of all.
        false_accepts: fast answers that differ from the full one, of all fast answers.
    """

    threshold: float
    coverage: Share
    false_accepts: Share


def curve(observations: Iterable[Observation], thresholds: Sequence[float] = THRESHOLDS) -> list[Point]:
    """A point per threshold, in order."""
    asked = list(observations)
    points = []
    for threshold in thresholds:
        taken = [one for one in asked if one.fast is not None and one.gap >= threshold]
        wrong = sum(not one.agrees for one in taken)
        points.append(Point(threshold, Share(len(taken), len(asked)), Share(wrong, len(taken))))
    return points


def choose(points: Iterable[Point], most: float) -> Point | None:
    """The threshold that answers most questions fast while false accepts stay below ``most``.

    What must stay below is the upper end of the interval, so that a handful of lucky answers proves nothing. Of
    thresholds that take the same answers, the highest.

    Args:
        points: of a curve.
        most: bound of the share of false accepts, 0 to 1.
    """
    fine = [point for point in points if point.false_accepts.total and point.false_accepts.interval[1] <= most]
    return max(fine, key=lambda point: (point.coverage.count, point.threshold), default=None)


def needed(most: float) -> int:
    """How many fast answers, all of them right, it takes before :func:`choose` can take a threshold.

    Args:
        most: as there, more than 0 and less than 1.
    """
    # Wilson's upper end for none of n is z² / (n + z²).
    return max(1, math.ceil(_Z95**2 * (1 - most) / most))


def turns(points: Sequence[Point], kept: Iterable[float]) -> list[Point]:
    """The points that say something new: where the answers taken differ from those of the threshold below.

    Args:
        points: of a curve.
        kept: thresholds to keep in any case.
    """
    kept = set(kept)
    return [
        point
        for index, point in enumerate(points)
        if index == 0 or point.threshold in kept or point.coverage.count != points[index - 1].coverage.count
    ]
