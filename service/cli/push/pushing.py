"""Pushes that go on over lost connections, dead servers and full queues, and know what was taken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from service.cli.client import PASSING, Client, session_path
from service.cli.failures import Failure, Refused, Unreachable
from service.cli.rows import Entry

_PAUSE_FIRST, _PAUSE_MOST = 0.5, 15.0
_POLL_SECONDS = 0.05
# Half of what the server keeps waiting by default; it drops the oldest beyond.
_WAITING_BYTES = 4 << 20
# Refusals after which the session tells whether the batch was taken, and the one after which nothing does yet.
_LOOK = frozenset({"answer_timeout", "owner_unavailable"})
_UNKNOWN = "outcome_unknown"


@dataclass(slots=True)
class Tally:
    """What a run has pushed.

    Attributes:
        entries: that were acknowledged.
        tokens: that these are, in the server's words.
        batches: that these came in.
        dropped: entries that the server's queue had no room for and displaced.
        total: entries that the session was ever given, by anybody.
    """

    entries: int = 0
    tokens: int = 0
    batches: int = 0
    dropped: int = 0
    total: int | None = None


class Pusher:
    """Pushes into one session.

    A batch whose acknowledgement was lost is looked for in the session before it is sent again, which is certain as
    long as nobody else pushes.

    Args:
        client: of the server.
        session_id: of an existing session.
        ahead: most entries that may wait to be read.
        attempts: how often a batch is tried in a row.
        told: called with a sentence when a batch has to wait for the server.

    Attributes:
        known: entries that the session ever took in, by the last acknowledgement; less than 0 before the first push.
        tally: what was pushed.
    """

    def __init__(
        self, client: Client, session_id: str, *, ahead: int, attempts: int, told: Callable[[str], None]
    ) -> None:
        self._client = client
        self._id = session_id
        self._ahead = ahead
        self._attempts = attempts
        self._told = told
        self.known = -1
        self._alone = True
        self.tally = Tally()

    async def push(self, entries: Sequence[Entry]) -> None:
        """Push a batch, and wait while too much waits to be read.

        Raises:
            Refused: the server does not want it.
            Unreachable: the server stays away.
            Failure: nobody can know whether it was taken.
        """
        if self.known < 0:
            self.known = await self._entries()
        for attempt, pause in enumerate(_pauses(self._attempts)):
            try:
                ack = await self._client.push(self._id, entries)
            except (Unreachable, Refused) as error:
                if error.code == _UNKNOWN:
                    raise self._unsure(len(entries)) from error
                if not _passes(error) or attempt == self._attempts - 1:
                    raise
                self._told(f"{error.message}; trying again")
                await asyncio.sleep(max(pause, error.retry_after or 0))
                lost = error.sent if isinstance(error, Unreachable) else error.code in _LOOK
                if lost and await self._taken(len(entries), self.known):
                    return
            else:
                await self._acknowledged(ack, self.known)
                return

    async def _taken(self, size: int, known: int) -> bool:
        """Whether the session has a batch whose acknowledgement was lost, beside the ``known`` entries before it."""
        now = await self._entries()
        if not self._alone or now - known not in (0, size):
            raise self._unsure(size)
        if now == known:
            return False
        self.known = now
        self.tally.entries += size
        self.tally.batches += 1
        return True

    def _unsure(self, size: int) -> Failure:
        return Failure(
            f"the acknowledgement of the last {size} entries was lost, and whether they were taken cannot be told here:"
            f" look at the newest entries of {self._id}, and add {size} to --skip if they are among them"
        )

    async def _entries(self) -> int:
        """Entries that the session ever took in, those that wait to be read included."""
        while True:
            newest = await self._newest()
            pending = int((await self._get(""))["pending"])
            if newest == await self._newest():
                return newest + pending

    async def _newest(self) -> int:
        found = (await self._get("/entries?limit=1"))["data"]
        return int(found[-1]["number"]) if found else 0

    async def _acknowledged(self, ack: dict[str, Any], known: int) -> None:
        tally = self.tally
        tally.entries += ack["pushed"]
        tally.tokens += ack["tokens"]
        tally.batches += 1
        tally.dropped += ack["dropped"]
        tally.total = ack["total_pushed"]
        self.known = ack["total_pushed"] - ack["total_dropped"]
        self._alone = self._alone and self.known == known + ack["pushed"] - ack["dropped"]
        waiting, size = ack["pending"], ack["pending_bytes"]
        while waiting > self._ahead or size > _WAITING_BYTES:
            await asyncio.sleep(_POLL_SECONDS)
            waiting, before = (await self._get(""))["pending"], waiting
            # Bytes are told with acknowledgements only.
            size = size * waiting // max(1, before)

    async def _get(self, path: str) -> dict[str, Any]:
        """What is at a path below the session's, once the server answers."""
        for attempt, pause in enumerate(_pauses(self._attempts)):
            try:
                return await self._client.call("GET", session_path(self._id) + path)
            except (Unreachable, Refused) as error:
                if attempt == self._attempts - 1 or not _passes(error):
                    raise
                self._told(f"{error.message}; trying again")
                await asyncio.sleep(max(pause, error.retry_after or 0))
        raise AssertionError("the last attempt returns or raises")


def _pauses(attempts: int) -> list[float]:
    return [min(_PAUSE_FIRST * 2.0**attempt, _PAUSE_MOST) for attempt in range(attempts)]


def _passes(error: Unreachable | Refused) -> bool:
    return isinstance(error, Unreachable) or error.status in PASSING
