"""Which streams are resident: who reads gets room, and who was used least recently and does nothing now makes it.

A stream that was let go is as right as before and slower to ask: its questions are ordinary requests, and once it is
used again its ingest loop reads it anew. Nobody waits for room with something in use that another could wait for, and
those that wait are served in order of arrival: so none waits for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from streams import context
from streams.budget import Budget, full
from streams.errors import ContextLengthExceeded, EngineUnavailable
from streams.places import Place, leaving
from streams.residency import Resident
from streams.session import Session

log = logging.getLogger(__name__)

# What warm turns have read, and what is read for a window, leaves before any stream does.
_LONG_AGO = float("-inf")


@dataclass(eq=False, slots=True)
class _Claim:
    """Somebody who waits for room; the future says whether there is some."""

    owner: Resident
    tokens: int
    granted: asyncio.Future[bool]


class Holding:
    """Shares the KV cache of one rank among what is resident there.

    At rest each owner is granted what it holds; more while it is in use.

    Args:
        budget: what all may hold.
        sessions: the live ones on this rank.
        free_while_asked: a stream may be let go while a question over it runs: the reserve has room for any prompt.
    """

    def __init__(
        self, budget: Budget[Resident], sessions: Callable[[], Iterable[Session]], *, free_while_asked: bool
    ) -> None:
        self.budget = budget
        self._sessions = sessions
        self._free_while_asked = free_while_asked
        self._used: Counter[Resident] = Counter()
        self._claims: deque[_Claim] = deque()
        self._releases: set[asyncio.Task[None]] = set()

    def check(self, tokens: int, param: str) -> None:
        """Refuse a stream of so many tokens if it could not be held even alone.

        Raises:
            ContextLengthExceeded: it could not; ``param`` is what would make it so long.
        """
        if tokens > self.budget.longest:
            raise ContextLengthExceeded(
                f"the stream would have {tokens} tokens and the KV cache has room for {self.budget.longest}; "
                "start a new session, with a `window` to keep it short, or the server with a larger --kv-cache-gb",
                param=param,
            )

    @contextmanager
    def use(self, owner: Resident) -> Iterator[None]:
        """Something is done with what it holds: it is not let go meanwhile."""
        self._used[owner] += 1
        try:
            yield
        finally:
            self._rest(owner)

    @asynccontextmanager
    async def room(
        self,
        session: Session,
        tokens: Callable[[], int],
        *,
        before: float | None = None,
        timeout: float | None = None,
        param: str = "data",
    ) -> AsyncIterator[bool]:
        """Room to read into a stream, for as long as that takes. Yields whether there is some.

        Args:
            session: the stream. Whoever asks has its :attr:`~streams.session.Session.reading`.
            tokens: what it holds then at most; asked again when there is room.
            before: None to wait for room, until there is some or the claim is given up with :meth:`forgo`. Otherwise
                only streams last used before then make room, and nobody waits.
            timeout: seconds to wait at most.
            param: what makes it so long.

        Raises:
            ContextLengthExceeded: there can never be so much.
            Unavailable: there was none in time.
        """
        owner = session.held
        self.check(tokens(), param)
        try:
            async with asyncio.timeout(timeout):
                got = await self._claimed(owner, tokens, before)
        except TimeoutError:
            raise full() from None
        if not got:
            yield False
            return
        try:
            yield True
        finally:
            self._rest(owner)

    @asynccontextmanager
    async def spare(self, session: Session, owner: Resident, tokens: int) -> AsyncIterator[bool]:
        """Room for something of a session's beside its stream. Yields whether there is some; never waits for it."""
        with self.use(session.held), self.use(owner):
            got = self._make_room(owner, tokens)
            if got:
                await self._released()
            yield got

    def grow(self, owner: Resident, tokens: int) -> bool:
        """Whether what is in use may hold so many tokens at once."""
        return tokens <= self.budget.of(owner) or self._make_room(owner, tokens)

    def forgo(self, session: Session) -> None:
        """The session's ingest loop waits for room no more, if it did."""
        for claim in [claim for claim in self._claims if claim.owner is session.held]:
            self._claims.remove(claim)
            if not claim.granted.done():
                claim.granted.set_result(False)
        self.serve()

    async def release(self, owner: Resident) -> None:
        """Give back what it holds, and its place."""
        try:
            await owner.release()
        finally:
            self.budget.release(owner)
            self.serve()

    def forget(self) -> None:
        """The engine has died: nothing is held any more, and nothing is in its cache."""
        for session in self._sessions():
            session.computed, session.let_go = 0, False
        for owner in self.budget.owners():
            if not self._used[owner]:
                self.budget.release(owner)
        self.serve()

    async def stop(self) -> None:
        """Wait for what is being released."""
        await self._released()

    def serve(self) -> None:
        """Give room to who waits for it, if there is some now."""
        while self._claims:
            claim = self._claims[0]
            # Whoever waited may have been cancelled and not know it yet.
            if not claim.granted.done():
                if not self._make_room(claim.owner, claim.tokens):
                    return
                self._used[claim.owner] += 1
                claim.granted.set_result(True)
            self._claims.popleft()

    # Claims

    async def _claimed(self, owner: Resident, tokens: Callable[[], int], before: float | None) -> bool:
        while True:
            wanted = tokens()
            if wanted <= self.budget.of(owner):
                self._used[owner] += 1
            elif before is not None:
                if self._claims or not self._make_room(owner, wanted, before):
                    return False
                self._used[owner] += 1
            elif not await self._waited(owner, wanted):
                return False
            try:
                await self._released()
            except BaseException:
                self._rest(owner)
                raise
            if self.grow(owner, tokens()):
                return True
            self._rest(owner)

    async def _waited(self, owner: Resident, tokens: int) -> bool:
        claim = _Claim(owner, tokens, asyncio.get_running_loop().create_future())
        self._claims.append(claim)
        self.serve()
        try:
            return await claim.granted
        except asyncio.CancelledError:
            if claim in self._claims:
                self._claims.remove(claim)
                self.serve()
            elif not claim.granted.cancelled() and claim.granted.result():
                self._rest(owner)
            raise

    def _rest(self, owner: Resident) -> None:
        """One thing less is done with it: once that is all, what it was granted and does not hold is free again."""
        self._used[owner] -= 1
        if self._used[owner]:
            return
        del self._used[owner]
        self.budget.grant(owner, min(self.budget.of(owner), len(owner.content)))
        self.serve()

    # Who makes room

    def _make_room(self, owner: Resident, tokens: int, before: float | None = None) -> bool:
        """Grant it if others can make room; of the streams only those last used before then."""
        missing = self.budget.missing(owner, tokens)
        if missing > 0:
            streams = {session.held: session for session in self._sessions()}
            idle = [
                self._place(other, streams.get(other))
                for other in self.budget.owners()
                if other is not owner and not self._used[other] and self._may_leave(streams.get(other), before)
            ]
            leave = leaving(idle, missing)
            if leave is None:
                return False
            for other in leave:
                self._let_go(other, streams.get(other))
        self.budget.grant(owner, tokens)
        return True

    def _place(self, owner: Resident, session: Session | None) -> Place[Resident]:
        share = self.budget.share(self.budget.of(owner))
        if session is None:
            return Place(owner, share, _LONG_AGO)
        return Place(owner, share, session.last_used, session.asking > 0)

    def _may_leave(self, session: Session | None, before: float | None) -> bool:
        if session is None:
            return True
        asked = session.asking > 0 and not self._free_while_asked
        return not asked and (before is None or session.last_used < before)

    def _let_go(self, owner: Resident, session: Session | None) -> None:
        self.budget.release(owner)
        hold = owner.let_go()
        if session is not None:
            session.let_go = True
        if hold is None:
            return

        async def release() -> None:
            try:
                await hold.release()
            except EngineUnavailable as error:
                log.error("what was let go is still held: %s", error.message)

        # Whoever needs the room is another session.
        task = asyncio.create_task(release(), name="let-go", context=context.of(session.id if session else ""))
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)

    async def _released(self) -> None:
        """Wait until the engine has everything back that the budget has."""
        while self._releases:
            await asyncio.wait(self._releases)
