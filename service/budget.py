"""How many bytes of request bodies the server holds at once."""

from __future__ import annotations

from streams.errors import Unavailable


class BodyBudget:
    """Bytes of request bodies held at this moment, over all connections.

    Args:
        limit: most bytes held at once.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    def take(self, count: int) -> None:
        """Account for ``count`` more bytes.

        Raises:
            Unavailable: they would exceed the limit; nothing is taken.
        """
        if self.held + count > self.limit:
            raise Unavailable(
                "the server is holding too many request bodies; try again shortly",
                code="too_many_bodies",
                retry_after=1,
            )
        self.held += count

    def give_back(self, count: int) -> None:
        """Forget ``count`` bytes taken before."""
        self.held -= count
