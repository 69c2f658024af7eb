"""When a Flash Query is evaluated. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flashquery.conditions import Values
from flashquery.queries import FlashQuery
from streams.tally import Over


@dataclass(frozen=True, slots=True)
class Last:
    """A query's last evaluation.

    Attributes:
        version: data version it was over.
        at: when it began, in seconds of a monotonic clock.
    """

    version: int
    at: float


def due_at(
    query: FlashQuery, last: Last | None, version: int, now: float, statistics: Callable[[Over], Values]
) -> float | None:
    """When a query is to be evaluated over a version.

    Args:
        query: with ``every``, ``min_interval`` and ``when``.
        last: None if it was never evaluated: then neither of the first two has to be waited for.
        version: the session's present one.
        now: seconds of the clock of ``last``.
        statistics: of the session at that version; only asked where they decide.

    Returns:
        ``now`` for at once, a later time at which to ask again, or None: not before there is another version.
    """
    if last is not None:
        if version - last.version < (query.every or 1):
            return None
        if query.min_interval is not None and last.at + query.min_interval > now:
            return last.at + query.min_interval
    if query.when is not None and not query.when.holds(statistics(query.with_stats or "window")):
        return None
    return now
