"""What every subscriber gets, however it is carried: of each session a snapshot first, then changes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace

from redis.exceptions import RedisError

from flashquery.cursor import Cursor, Id
from flashquery.events import Event, Subscription
from flashquery.queries import Look
from flashquery.replay import Replay
from flashquery.waves import flash_ready
from service.core import Core
from service.views import View
from streams import tracing
from streams.errors import NotFound

# How often the owner of a session is told that it is watched elsewhere; sessions live a second at least.
_KEEP_SECONDS = 15.0
_REPLIES = frozenset({"push_ack", "pong", "error"})

Shape = Callable[[Event], Event | None]
"""Puts an event as the subscriber is to see it; None leaves it out."""


def bare(event: Event) -> Event | None:
    """For who watches one session: knows whose an event is, and takes the end of the feed for the session's."""
    return None if event.kind == "deleted" else event


def labelled(event: Event) -> Event | None:
    """For who watches several: every event says whose it is."""
    if not event.session_id:
        return event
    return replace(event, data={"session_id": event.session_id, **event.data})


def _rounded(event: Event) -> Event:
    """With times in whole seconds, as clients get them."""
    if event.kind != "flash_ready":
        return event
    return replace(event, data={**event.data, "evaluated_at": int(event.data["evaluated_at"])})


def delivering(event: Event | None) -> tracing.Span:
    """The span of handing an event on to a subscriber, where what has led to it is recorded."""
    if event is None or not event.trace:
        return tracing.OFF
    attributes = {"gen_ai.conversation.id": event.session_id, "askahead.event": event.kind}
    return tracing.start(f"deliver {event.kind}", attributes, parent=event.trace, kind="producer")


@dataclass(slots=True)
class _Watched:
    """A session of the feed.

    Attributes:
        view: the session.
        at: where it was created, if that was heard.
        pin: keeps it from expiring until closed.
        opened: whether ``connected`` was told; before that, nothing else is.
        version: the one that a snapshot told, 0 if there was none.
        replayed: by query, version and time of the answer in the snapshot.
    """

    view: View
    at: Id | None = None
    pin: ExitStack = field(default_factory=ExitStack)
    opened: bool = False
    version: int = 0
    replayed: dict[int, tuple[int, float]] = field(default_factory=dict)


class Feed:
    """Events of sessions for one subscriber. Use as a context manager: while it is open, they do not expire.

    Of each session: ``connected``, every cached answer, and then what happens until it is ``deleted``. Of one that is
    created meanwhile: ``connected``, and all that happens. The feed goes on until the last session that was named is
    deleted; with a prefix it has no end of its own.

    With a position, ``connected`` says whether the session is ``resumed``: then what happened after that position comes
    next, instead of the answers.

    Args:
        core: where sessions, answers and events come from.
        sessions: ids of named ones.
        prefix: all whose ids start so, those to come included.
        shape: how events are put.
        after: the position to resume from.

    Attributes:
        queue: what waits for the subscriber; replies to it may be added.

    """

    queue: Subscription

    def __init__(
        self,
        core: Core,
        sessions: Iterable[str] = (),
        prefix: str | None = None,
        shape: Shape = bare,
        after: Cursor | None = None,
    ) -> None:
        self._core = core
        self._named = tuple(sessions)
        self._missing: dict[str, NotFound] = {}
        self._prefix = prefix
        self._shape = shape
        self._after = after
        self._cursor = Cursor(0)
        self._replay: Replay | None = None
        # Where the snapshots have come to an end that a client can resume from.
        self._whole = False
        self._watched: dict[str, _Watched] = {}
        self._unopened: deque[_Watched] = deque()
        self._ready: deque[Event] = deque()
        self._stack = ExitStack()
        self._kept_at = 0.0

    def __enter__(self) -> Feed:
        # Subscribed before any snapshot is taken, so that nothing between it and the first event is missed.
        self.queue = self._stack.enter_context(self._core.hub.subscribe(*self._named, prefix=self._prefix))
        return self

    def __exit__(self, *_: object) -> None:
        for watched in self._watched.values():
            watched.pin.close()
        self._stack.close()

    async def begin(self) -> None:
        """Take the first snapshot, so that a store that does not answer is told of before anything is sent.

        Raises:
            NotFound: a session that was named does not exist, and its end is not known either.
            RedisError: it does not.
        """
        if not self._named and self._prefix is None:
            return  # a producer's: nothing is heard
        await self._find()
        self._cursor = Cursor(await self._core.events.now())
        if self._after is not None:
            await self._resume(self._after)
        self._whole = self._replay is not None or not self._unopened
        if self._unopened and not self._ready:
            await self._open_next()

    async def next(self, timeout: float) -> Event | None:
        """The next event, or None after ``timeout`` seconds of silence.

        Raises:
            SubscriptionEnded: nothing more will come.
            RedisError: a snapshot cannot be taken.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        while True:
            await self._keep()
            if self._ready:
                event: Event | None = self._ready.popleft()
            elif self._unopened:
                await self._open_next()
                continue
            elif self._replay is not None and (missed := await self._replay.next()) is not None:
                event = await self._heard(missed, missed=True)
            else:
                event = await self.queue.next(max(0.0, until - loop.time()))
                if event is None:
                    return None
                event = None if self._is_told(event) else await self._heard(event)
            shown = None if event is None else self._shape(_rounded(self._placed(event)))
            if shown is not None:
                return shown

    async def _find(self) -> None:
        """Look up what is to be watched."""
        for session_id in self._named:
            try:
                self._watch(await self._core.view(session_id))
            except NotFound as error:
                if self._after is None:
                    raise
                self._missing[session_id] = error
        if self._prefix is not None:
            for view in await self._core.views(self._prefix):
                self._watch(view)

    async def _keep(self) -> None:
        """Tell the owners of other servers' sessions that these are watched."""
        now = asyncio.get_running_loop().time()
        if now - self._kept_at < _KEEP_SECONDS:
            return
        self._kept_at = now
        with suppress(RedisError):
            for watched in tuple(self._watched.values()):
                await watched.view.keep()

    def _placed(self, event: Event) -> Event:
        """With what to resume from after it."""
        if event.at is None:
            return event
        self._cursor = self._cursor.moved(event.session_id, event.at)
        return replace(event, position=str(self._cursor))

    def _watch(self, view: View, at: Id | None = None) -> None:
        if view.id in self._watched:
            return
        watched = self._watched[view.id] = _Watched(view, at)
        watched.pin.enter_context(view.pinned())
        self._unopened.append(watched)

    def _forget(self, session_id: str) -> bool:
        """Whether there was something to forget."""
        watched = self._watched.pop(session_id, None)
        if watched is not None:
            watched.pin.close()
        return watched is not None

    async def _resume(self, after: Cursor) -> None:
        """Begin where the subscriber was. Sessions of which it would miss something begin anew."""
        deleted: set[str] | None = set()
        if self._prefix is not None:
            deleted = await self._core.events.deletions(after.ms)
        # A position that is still to come is none that was given out over this Redis.
        known = deleted is not None and after.ms <= self._cursor.ms
        gone = {session_id for session_id in deleted or () if session_id.startswith(self._prefix or "")}
        asked = self._watched.keys() | self._missing.keys() | gone
        replay = Replay(self._core.events, after, self._cursor.ms, len(asked))
        before = await replay.begin(asked) if known else {}
        for session_id, error in self._missing.items():
            # Nothing was told of it yet but, if that is known, that it is gone.
            if before.get(session_id, error) is not None:
                raise error
        anew: deque[_Watched] = deque()
        for watched in self._unopened:
            session_id = watched.view.id
            if session_id not in before:
                anew.append(watched)
            elif (last := before[session_id]) is None or last.kind == "deleted":
                self._forget(session_id)  # it came later, as will be told
            else:
                await self._connect(watched, resumed=True)
        self._unopened = anew
        if before:
            self._replay, self._cursor = replay, after
        if len(self._missing) == len(self._named) and self._prefix is None:
            self.queue.end("deleted")

    async def _open_next(self) -> None:
        await self._open(self._unopened.popleft())
        if not self._unopened and not self._whole:
            self._whole = True
            if self._ready:
                self._ready[-1] = replace(self._ready[-1], position=str(self._cursor))

    async def _open(self, watched: _Watched) -> None:
        """``connected``, then every cached answer, unless all that led to them is yet to be heard."""
        look = await self._connect(watched, resumed=False)
        if look is None or watched.at is not None:
            return
        watched.version = look.version
        for query in look.queries:
            if (answer := look.answers.get(query.id)) is not None:
                self._ready.append(Event("flash_ready", flash_ready(query, answer), watched.view.id))
                watched.replayed[query.id] = answer.version, answer.evaluated_at

    async def _connect(self, watched: _Watched, *, resumed: bool) -> Look | None:
        """Tell of the session; how it looks, or None if it was deleted before its turn, as will be told."""
        session_id = watched.view.id
        try:
            look = await watched.view.look()
        except NotFound:
            return None
        # From its creation on all is heard: what has happened since is yet to be told, also to who resumes in between.
        version = look.version if watched.at is None else 0
        connected = {"session_id": session_id, "data_version": version, "flash_queries": len(look.queries)}
        if self._after is not None and watched.at is None:
            connected["resumed"] = resumed
        # An acknowledgement comes before what its data causes, and some of that may be in the snapshot.
        self._ready.extend(self.queue.pull("push_ack"))
        self._ready.append(Event("connected", connected, session_id, watched.at))
        watched.opened = True
        return look

    def _is_told(self, event: Event) -> bool:
        """Whether something that is heard live was replayed already."""
        if event.at is None or self._replay is None:
            return False
        return event.at <= self._replay.told.get(event.session_id, (0, 0))

    async def _heard(self, event: Event, *, missed: bool = False) -> Event | None:
        """The event, if it is for subscribers and not told yet. What was ``missed`` may be of sessions long gone."""
        if event.kind in _REPLIES:
            return event
        if event.kind == "created":
            await self._created(event, missed)
            return None
        if event.kind == "deleted":
            return event if self._forget(event.session_id) or missed else None
        watched = self._watched.get(event.session_id)
        if watched is None or not watched.opened or event.kind == "queries_changed":
            return None
        if event.kind == "data_updated" and event.data["data_version"] <= watched.version:
            return None
        if event.kind == "flash_ready":
            replayed = watched.replayed.get(event.data["id"])
            # A query that was changed is evaluated again over the same version.
            if replayed is not None and (event.data["data_version"], event.data["evaluated_at"]) <= replayed:
                return None
        return event

    async def _created(self, event: Event, missed: bool) -> None:
        if missed:
            self._forget(event.session_id)  # one of the same name that was there before
        try:
            self._watch(await self._core.view(event.session_id), event.at)
        except NotFound:
            return  # and deleted already
