"""Flash Queries of all sessions: registration, evaluation after every batch, answers out to the cache."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any, Unpack

from redis.asyncio import Redis

from flashquery import answers, registrations
from flashquery.answers import Answer
from flashquery.asking import Asking
from flashquery.checks import check_names, check_room, choice_tree, clamped
from flashquery.confidence import Prefix
from flashquery.eventlog import EventLog
from flashquery.events import Event
from flashquery.history import History
from flashquery.notify import Notifier, Webhook
from flashquery.queries import Changes, FlashQuery, Look, Options, Registry
from flashquery.ready import GAP_THRESHOLD, Ready, first_tokens
from flashquery.schedule import Last
from flashquery.waves import Evaluated, Standing, Waves
from streams import context
from streams import keys as stream_keys
from streams.errors import Unavailable
from streams.journal import WRITE_SECONDS, Journal
from streams.manager import Manager
from streams.session import Session
from streams.store import in_time
from streams.tally import Over

# Not part of what subscribers are shown.
_QUERIES_CHANGED = Event("queries_changed", {})
# Candidates whose first tokens are kept: tokenizing them takes longer than all the rest of a fast answer.
_CANDIDATES = 4096


class FlashQueries:
    """Use as an async context manager: it owns one evaluating task per session that has queries.

    Args:
        manager: the streams.
        redis: where answers live.
        journal: writes what changes.
        events: where what happens is told.
        history: where answers are kept.
        max_queries: per session.
        concurrency: evaluation requests in the engine at once, all sessions together.
        evaluated: called after each evaluation.
        notifier: tells webhooks of changed answers; None where queries have none.
    """

    def __init__(
        self,
        manager: Manager,
        redis: Redis,
        journal: Journal,
        events: EventLog,
        history: History,
        *,
        max_queries: int = 20,
        concurrency: int = 16,
        evaluated: Callable[[Evaluated], None] = lambda _: None,
        notifier: Notifier | None = None,
    ) -> None:
        self._history = history
        self._redis = redis
        self._journal = journal
        self._events = events
        self._manager = manager
        self._questions = manager.questions
        self._max_queries = max_queries
        self._notifier = notifier
        self._statistics_room = manager.room.questions // 2
        asking = Asking(manager.questions, concurrency, self._statistics_room)
        self._waves = Waves(asking, journal, self._history, events, evaluated, notifier)
        self._first_tokens = lru_cache(_CANDIDATES)(lambda text: first_tokens(text, manager.questions.encode))
        self._standing: dict[str, Standing] = {}
        manager.listen(self)

    async def __aenter__(self) -> FlashQueries:
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [standing.task for standing in self._standing.values() if standing.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Registration

    async def register(
        self,
        session: Session,
        text: str,
        max_tokens: int | None = None,
        choices: Sequence[str] | None = None,
        schema: Mapping[str, Any] | None = None,
        notify: Webhook | None = None,
        **options: Unpack[Options],
    ) -> FlashQuery:
        """Register a standing question; it is evaluated at once if the stream has data.

        Args:
            text: the question.
            max_tokens: longest answer, clamped into 1 to 256; None for 32, or 256 where there is a schema.
            choices: the answer is one of these, at least two.
            schema: JSON schema that the answer obeys.
            notify: who is told when the answer changes.
            options: see :class:`~flashquery.queries.FlashQuery`.

        Raises:
            Conflict: the text is registered already, or there are too many queries.
            InvalidInput: the question, with room for its statistics, is too long to be asked until the stream is full,
                the model cannot tell the choices apart, the schema cannot be enforced, or the condition names
                statistics that there are not.
            NotFound: the session was deleted meanwhile.
            Unavailable: it could not be stored, and is not registered.
        """
        check_names(session, options.get("when"))
        tokens = self._questions.encode(text)
        chosen = {choice: self._questions.encode(choice) for choice in choices or ()}
        self._check_room(session, tokens, chosen.values(), options.get("with_stats"))
        tree = None if choices is None else choice_tree(chosen, self._questions.eos_id)
        if schema is not None:
            self._questions.check_schema(schema, "schema")
        async with self._changing(session) as standing:
            query = standing.registry.add(
                text,
                tokens,
                clamped(max_tokens, schema),
                None if choices is None else tuple(choices),
                tree,
                schema,
                notify=notify,
                **options,
            )
            stored = [*registrations.save(session.id, query), *registrations.number(session.id, query.id)]

            def begin(_: int) -> None:
                # The session may be over by now.
                if self._standing.get(session.id) is standing and query in standing.registry:
                    self._watch(session, query)
                    self._start(session, standing)
                    self._announce(session)

            try:
                await self._journal.write(session.id, stored, begin)
            except Unavailable:
                standing.registry.remove(query.id)
                # In case that it was stored after all.
                self._journal.put(session.id, ("query", query.id), registrations.drop(session.id, query.id))
                raise
            return query

    async def change(self, session: Session, query_id: int, **changes: Unpack[Changes]) -> FlashQuery:
        """Change how a query is answered; the answer to another question than it is then is forgotten.

        Raises:
            NotFound: there is no such query.
            InvalidInput: the condition names statistics that there are not, or the question has no room beside any.
            Unavailable: it could not be stored, and is not changed.
        """
        check_names(session, changes.get("when"))
        async with self._changing(session) as standing:
            before = standing.registry.get(query_id)
            longest = clamped(changes.get("max_tokens", before.max_tokens), before.schema)
            values: dict[str, Any] = {**changes, "max_tokens": longest}
            query = replace(before, **values)
            self._check_room(session, query.tokens, map(self._questions.encode, query.choices or ()), query.with_stats)
            commands = registrations.save(session.id, query)
            if query.asked != before.asked:
                commands += answers.drop(session.id, query_id)

            def change(_: int) -> None:
                standing.registry.put(query)
                if query.asked != before.asked:
                    standing.last.pop(query_id, None)
                    self._drop_late(session, query_id)
                self._start(session, standing)
                self._announce(session)

            await self._journal.write(session.id, commands, change)
            return query

    @asynccontextmanager
    async def _changing(self, session: Session) -> AsyncIterator[Standing]:
        """The session's queries, to change one: what was asked for before is so, or is not, by then."""
        standing = self._of(session)
        async with self._journal.changing(session.id, standing.changing, WRITE_SECONDS):
            session.require_live()
            yield standing

    def _check_room(
        self, session: Session, question: Prefix, choices: Iterable[Prefix], with_stats: Over | None
    ) -> None:
        longest = max(map(len, choices), default=0)
        tokens = len(question) + len(session.frame.tail) + longest
        statistics = 0 if with_stats is None else self._statistics_room
        check_room(tokens, self._manager.room.questions, statistics)

    def _watch(self, session: Session, query: FlashQuery) -> None:
        if self._notifier is not None and query.notify is not None:
            self._notifier.watch(session.id, query.id, query.notify)

    @property
    def warning(self) -> str | None:
        """What whoever registers a query should know of the model, if there is something."""
        dialect = self._manager.engine.dialect
        if dialect.reasons and not dialect.switchable:
            return (
                "this model thinks before it answers and its chat template cannot turn that off: thoughts count "
                "against max_tokens, so give it many, or use choices"
            )
        return None

    async def remove(self, session: Session, query_id: int) -> int:
        """Delete a query and its answer; returns how many are left.

        Raises:
            NotFound: there is no such query.
            Unavailable: that could not be stored, and the query is still there.
        """
        async with self._changing(session) as standing:
            standing.registry.get(query_id)
            commands = [
                *registrations.drop(session.id, query_id),
                *self._history.clear(session.id, [query_id]),
                *answers.drop(session.id, query_id),
            ]

            def remove(_: int) -> None:
                standing.registry.remove(query_id)
                standing.last.pop(query_id, None)
                standing.values.pop(query_id, None)
                if self._notifier is not None:
                    self._notifier.forget(session.id, query_id)
                self._journal.put(session.id, ("history", query_id), self._history.clear(session.id, [query_id]))
                self._drop_late(session, query_id)
                self._announce(session)

            await self._journal.write(session.id, commands, remove)
            return len(standing.registry)

    def _drop_late(self, session: Session, query_id: int) -> None:
        """What an evaluation has handed in meanwhile comes behind what was written, and must not stay."""
        self._journal.put(session.id, query_id, answers.drop(session.id, query_id))

    def registry(self, session: Session) -> Registry:
        """The session's queries."""
        return self._of(session).registry

    def look(self, session: Session) -> Look:
        """The session's queries and answers; the same object while nothing has changed."""
        return self._of(session).registry.look(session.version)

    def match(self, session: Session, text: str) -> tuple[FlashQuery, Answer] | None:
        """The query that is exactly this text and its answer, if that is of the present version."""
        registry = self._of(session).registry
        query = registry.match(text)
        answer = None if query is None else registry.answer(query.id)
        if query is None or answer is None or answer.version != session.version:
            return None
        return query, answer

    def ready(self, session: Session) -> Ready | None:
        """The session's decision point, if it is of the present version."""
        standing = self._standing.get(session.id)
        ready = None if standing is None else standing.ready
        return ready if ready is not None and ready.version == session.version else None

    def guess(
        self, session: Session, text: str, candidates: Sequence[str] | None = None, threshold: float | None = None
    ) -> tuple[str, Ready] | None:
        """The candidate that the model is about to answer, without asking it; and the decision point that says so.

        Args:
            text: the question.
            candidates: what the answer may be; None for those of the query that is exactly this text.
            threshold: least logit gap, in nats; None for that query's, or the default.
        """
        ready = self.ready(session)
        if ready is None:
            return None
        query = self._of(session).registry.match(text)
        if candidates is None:
            candidates = () if query is None else query.fast_answer
        if threshold is None:
            threshold = None if query is None else query.gap_threshold
        firsts = {candidate: self._first_tokens(candidate) for candidate in candidates}
        picked = ready.pick(firsts, GAP_THRESHOLD if threshold is None else threshold)
        return None if picked is None else (picked, ready)

    def _announce(self, session: Session) -> None:
        """Tell whoever waits for a list to change."""
        self._journal.put(session.id, "queries", self._events.publish(session.id, _QUERIES_CHANGED))

    def _start(self, session: Session, standing: Standing) -> None:
        """Have whatever is due evaluated."""
        if standing.task is None:
            standing.task = asyncio.create_task(
                self._waves.run(session, standing), name=f"evaluate-{session.id}", context=context.of(session.id)
            )
        standing.due.set()

    def _of(self, session: Session) -> Standing:
        session.require_live()
        standing = self._standing.get(session.id)
        if standing is None:
            standing = self._standing[session.id] = Standing(Registry(self._max_queries))
        return standing

    # What the streams report

    def created(self, session: Session) -> None:
        """There is a new session: tell those who wait for some of its kind."""
        self._journal.put(session.id, "created", self._events.publish(session.id, Event("created", {})))

    async def adopted(self, session: Session) -> None:
        """A session is back: so are its queries and what is known of their answers."""
        queries, last = await registrations.read(self._redis, session.id)
        stored = await answers.read(self._redis, session.id)
        async with in_time():
            told = await self._redis.hget(stream_keys.meta(session.id), "version")
        if int(told or 0) < session.version:
            # Its owner was killed before it could.
            self._tell(session)
        if not last:
            return
        standing = self._of(session)
        standing.registry.restore(map(self._askable, queries), last, stored)
        now = asyncio.get_running_loop().time()
        for query in standing.registry:
            self._watch(session, query)
            if (answer := stored.get(query.id)) is not None:
                standing.last[query.id] = Last(answer.version, now)
                standing.values[query.id] = answer.value
        self._start(session, standing)

    def _askable(self, query: FlashQuery) -> FlashQuery:
        chosen = {choice: self._questions.encode(choice) for choice in query.choices or ()}
        return replace(query, tree=choice_tree(chosen, self._questions.eos_id)) if chosen else query

    def settled(self, session: Session, tokens: int, seconds: float) -> None:
        """New data is resident: tell subscribers, then evaluate."""
        self._renewed(session)

    def turned(self, session: Session) -> None:
        """A turn was settled: the same."""
        self._renewed(session)

    def moved(self, session: Session, tokens: int) -> None:
        """The window moved on: the same."""
        self._renewed(session)

    def froze(self, session: Session) -> None:
        """Data was frozen: the same."""
        self._renewed(session)

    def _renewed(self, session: Session) -> None:
        self._tell(session)
        if session.pre_decode and not session.deleted:
            self._start(session, self._of(session))
        elif (standing := self._standing.get(session.id)) is not None:
            standing.due.set()

    def _tell(self, session: Session) -> None:
        """Tell subscribers of the present version."""
        event = Event(
            "data_updated",
            {
                "data_version": session.version,
                "tokens": session.tokens,
                "entries": session.entries,
                "pending": session.pending,
            },
        )
        # Whoever does not own the session knows from there which answers are fresh.
        known = ("HSET", stream_keys.meta(session.id), "version", session.version)
        self._journal.put(session.id, "data", [known, *self._events.publish(session.id, event)])

    async def deleted(self, session: Session) -> None:
        """A session is gone: so are its queries, answers and subscriptions."""
        standing = await self._end(session)
        await self._events.remember_deletion(session.id)
        queries = [] if standing is None else [query.id for query in standing.registry]
        forget = [
            *registrations.clear(session.id),
            *answers.clear(session.id),
            *self._history.clear(session.id, queries),
            *self._events.publish(session.id, Event("deleted", {})),
        ]
        self._journal.put(session.id, "deleted", forget, behind=True)

    async def lost(self, session: Session) -> None:
        """A session is another server's, and so are its queries."""
        await self._end(session)

    async def _end(self, session: Session) -> Standing | None:
        standing = self._standing.pop(session.id, None)
        if standing is not None and standing.task is not None:
            standing.task.cancel()
            await asyncio.gather(standing.task, return_exceptions=True)
        if self._notifier is not None:
            self._notifier.forget(session.id)
        return standing
