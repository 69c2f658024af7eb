"""Flash Queries of all sessions: registration, evaluation after every batch, answers out to the cache.

Evaluation never blocks ingest, and newer data never aborts it: a wave over a snapshot runs to its end, then the newest
version is next, and versions in between are skipped. So answers keep coming however fast data does.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import RedisError

from flashquery.answers import Answer, AnswerCache
from flashquery.confidence import ChoiceTree, Prefix, gap
from flashquery.events import Event, Hub
from flashquery.notify import Notifier, Webhook
from flashquery.outbox import Outbox
from flashquery.queries import FlashQuery, Registry
from streams.engine.base import FinishReason, Priority, Sampling
from streams.errors import AskaheadError, InvalidInput, Unavailable
from streams.manager import Manager
from streams.messages import Shape
from streams.questions import Prompt
from streams.reply import Reply
from streams.session import Session, Snapshot

log = logging.getLogger(__name__)

# For whoever waits for a list to change; not part of what subscribers are shown.
_QUERIES_CHANGED = Event("queries_changed", {})
_MAX_TOKENS = 32
_LONGEST = 256
_PLAIN = Shape(choice="none")


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One finished evaluation, for whoever measures.

    Attributes:
        seconds: from the start of the wave to the answer.
        behind: versions the stream had moved on by then.
    """

    seconds: float
    behind: int


@dataclass(slots=True)
class _Standing:
    """A session's queries and the task that evaluates them."""

    registry: Registry
    due: asyncio.Event = field(default_factory=asyncio.Event)
    versions: dict[int, int] = field(default_factory=dict)
    values: dict[int, str] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None


class FlashQueries:
    """Use as an async context manager: it owns one evaluating task per session that has queries.

    Args:
        manager: the streams.
        redis: where answers live and events travel.
        max_queries: per session.
        concurrency: evaluation requests in the engine at once, all sessions together.
        backlog: events that may wait for one subscriber.
        evaluated: called after each evaluation.
        notifier: tells webhooks of changed answers; None where queries have none.
    """

    def __init__(
        self,
        manager: Manager,
        redis: Redis,
        *,
        max_queries: int = 20,
        concurrency: int = 16,
        backlog: int = 1024,
        evaluated: Callable[[Evaluated], None] = lambda _: None,
        notifier: Notifier | None = None,
    ) -> None:
        self.cache = AnswerCache(redis)
        self.hub = Hub(redis, backlog)
        self.outbox = Outbox(redis)
        self._manager = manager
        self._questions = manager.questions
        self._max_queries = max_queries
        self._slots = asyncio.Semaphore(concurrency)
        self._evaluated = evaluated
        self._notifier = notifier
        self._standing: dict[str, _Standing] = {}
        self._parts = AsyncExitStack()
        manager.listen(self)

    async def __aenter__(self) -> FlashQueries:
        async with AsyncExitStack() as parts:
            await parts.enter_async_context(self.outbox)
            await parts.enter_async_context(self.hub)
            self._parts = parts.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [standing.task for standing in self._standing.values() if standing.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._parts.aclose()

    # Registration

    def register(
        self,
        session: Session,
        text: str,
        max_tokens: int | None = None,
        choices: Sequence[str] | None = None,
        schema: Mapping[str, Any] | None = None,
        notify: Webhook | None = None,
    ) -> FlashQuery:
        """Register a standing question; it is evaluated at once if the stream has data.

        Args:
            text: the question.
            max_tokens: longest answer, clamped into 1 to 256; None for 32, or 256 where there is a schema.
            choices: the answer is one of these, at least two.
            schema: JSON schema that the answer obeys.
            notify: who is told when the answer changes.

        Raises:
            Conflict: the text is registered already, or there are too many queries.
            InvalidInput: the question is too long to be asked until the stream is full, the model cannot tell the
                choices apart, or the schema cannot be enforced.
            NotFound: the session was deleted meanwhile.
        """
        standing = self._of(session)
        tokens = self._questions.encode(text)
        chosen = {choice: self._questions.encode(choice) for choice in choices or ()}
        spent = len(tokens) + len(session.frame.tail) + max(map(len, chosen.values()), default=0)
        if spent >= self._manager.question_room:
            raise InvalidInput(
                f"the query needs {spent} tokens and {self._manager.question_room} are kept free for a question; "
                "shorten it",
                param="query",
            )
        tree = None
        if choices is not None:
            if len(set(chosen.values())) < len(chosen) or not all(chosen.values()):
                raise InvalidInput("choices: two of them are the same to this model, or one is empty", param="choices")
            tree = ChoiceTree(chosen, self._questions.eos_id)
        if schema is not None:
            self._questions.check_schema(schema, "schema")
        if max_tokens is None:
            max_tokens = _MAX_TOKENS if schema is None else _LONGEST
        query = standing.registry.add(
            text,
            tokens,
            min(max(max_tokens, 1), _LONGEST),
            None if choices is None else tuple(choices),
            tree,
            schema,
            notify,
        )
        if self._notifier is not None and notify is not None:
            self._notifier.watch(session.id, query.id, notify)
        if standing.task is None:
            standing.task = asyncio.create_task(
                self._evaluate_forever(session, standing), name=f"evaluate-{session.id}"
            )
        standing.due.set()
        self.outbox.put(session.id, "queries", lambda pipe: _QUERIES_CHANGED.publish(pipe, session.id))
        return query

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

    def remove(self, session: Session, query_id: int) -> int:
        """Delete a query and its answer; returns how many are left. Raises NotFound."""
        standing = self._of(session)
        standing.registry.remove(query_id)
        standing.versions.pop(query_id, None)
        standing.values.pop(query_id, None)
        if self._notifier is not None:
            self._notifier.forget(session.id, query_id)
        self.outbox.put(session.id, query_id, lambda pipe: self.cache.drop(pipe, session.id, query_id))
        self.outbox.put(session.id, "queries", lambda pipe: _QUERIES_CHANGED.publish(pipe, session.id))
        return len(standing.registry)

    def registry(self, session: Session) -> Registry:
        """The session's queries."""
        return self._of(session).registry

    async def match(self, session: Session, text: str) -> tuple[FlashQuery, Answer] | None:
        """The query that is exactly this text and its answer, if that is of the present version."""
        standing = self._of(session)
        query = standing.registry.match(text)
        if query is None or standing.versions.get(query.id) != session.version:
            return None
        try:
            answer = await self.cache.get(session.id, query.id)
        except RedisError:
            # The question can be computed instead: slower, never wrong. The outbox reports the outage.
            return None
        return (query, answer) if answer is not None and answer.version == session.version else None

    def _of(self, session: Session) -> _Standing:
        session.require_live()
        standing = self._standing.get(session.id)
        if standing is None:
            standing = self._standing[session.id] = _Standing(Registry(self._max_queries))
            # A server that was killed leaves the answers of its sessions, and names and numbers are used again.
            self.outbox.put(session.id, "left behind", lambda pipe: self.cache.clear(pipe, session.id))
        return standing

    # What the streams report

    def settled(self, session: Session, tokens: int, seconds: float) -> None:
        """New data is resident: tell subscribers, then evaluate."""
        self._renewed(session)

    def turned(self, session: Session) -> None:
        """A turn was settled: the same."""
        self._renewed(session)

    def _renewed(self, session: Session) -> None:
        event = Event(
            "data_updated",
            {"data_version": session.version, "tokens": session.tokens, "pending": session.pending},
        )
        self.outbox.put(session.id, "data", lambda pipe: event.publish(pipe, session.id))
        if (standing := self._standing.get(session.id)) is not None:
            standing.due.set()

    async def deleted(self, session: Session) -> None:
        """A session is gone: so are its queries, answers and subscriptions."""
        standing = self._standing.pop(session.id, None)
        if standing is not None and standing.task is not None:
            standing.task.cancel()
            await asyncio.gather(standing.task, return_exceptions=True)
        if self._notifier is not None:
            self._notifier.forget(session.id)

        def forget(pipe: Pipeline) -> None:
            self.cache.clear(pipe, session.id)
            Event("deleted", {}).publish(pipe, session.id)

        self.outbox.discard(session.id)
        self.outbox.put(session.id, "deleted", forget)
        await self.outbox.flush(1.0)

    # Evaluation

    async def _evaluate_forever(self, session: Session, standing: _Standing) -> None:
        failing = False
        while True:
            await standing.due.wait()
            standing.due.clear()
            if not session.version:
                continue
            snapshot = session.snapshot()
            wave = [query for query in standing.registry if standing.versions.get(query.id) != snapshot.version]
            results = await asyncio.gather(
                *(self._evaluate(session, standing, query, snapshot) for query in wave), return_exceptions=True
            )
            failures = [result for result in results if isinstance(result, Exception)]
            if failures and not failing:
                log.error(
                    "evaluating session %s failed: %s",
                    session.id,
                    failures[0],
                    exc_info=None if isinstance(failures[0], AskaheadError) else failures[0],
                )
            elif failing and wave and not failures:
                log.info("evaluating session %s works again", session.id)
            failing = bool(failures)

    async def _evaluate(self, session: Session, standing: _Standing, query: FlashQuery, snapshot: Snapshot) -> None:
        started = time.monotonic()
        if query.tree is None:
            answer = await self._answer(session, query, snapshot)
        else:
            answer = await self._choose(session, query, query.tree, snapshot)
        if query.id not in standing.registry:
            return
        standing.versions[query.id] = snapshot.version
        changed = standing.values.get(query.id) != answer.value
        standing.values[query.id] = answer.value
        ready = flash_ready(query, answer)
        event = Event("flash_ready", {**ready, "changed": changed})
        if self._notifier is not None:
            self._notifier.answered(session.id, query.id, ready)

        def store(pipe: Pipeline) -> None:
            self.cache.save(pipe, session.id, query.id, answer)
            event.publish(pipe, session.id)

        self.outbox.put(session.id, query.id, store)
        self._evaluated(Evaluated(time.monotonic() - started, session.version - snapshot.version))

    async def _answer(self, session: Session, query: FlashQuery, snapshot: Snapshot) -> Answer:
        prompt = self._questions.prompt(session, query.tokens, snapshot=snapshot)
        reply = await self._run(
            prompt, Sampling(query.max_tokens, top_logprobs=2), Shape(choice="none", schema=query.schema)
        )
        if query.schema is not None and reply.finish_reason == "length":
            raise Unavailable(
                f"the answer to flash query {query.id} did not fit {query.max_tokens} tokens, and half of a JSON value "
                "is of no use; raise max_tokens, or bound the lengths in the schema"
            )
        # The first token of the answer proper, not of thoughts before it, where there was something to decide.
        decided = (token for token in reply.logprobs if not token.thinking and len(token.top) > 1)
        first = next(decided, None)
        confidence = 0.0 if first is None else gap(dict(first.top))
        finish_reason: FinishReason = "length" if reply.finish_reason == "length" else "stop"
        return Answer(reply.message.content, snapshot.version, confidence, time.time(), finish_reason)

    async def _choose(self, session: Session, query: FlashQuery, tree: ChoiceTree, snapshot: Snapshot) -> Answer:
        found: dict[Prefix, Mapping[int, float]] = {}

        async def decide(prefix: Prefix) -> None:
            prompt = self._questions.prompt(session, query.tokens, answer=prefix, snapshot=snapshot)
            named = tree.decisions[prefix]
            reply = await self._run(prompt, Sampling(max_tokens=1, top_logprobs=0, logprob_token_ids=named))
            found[prefix] = reply.named_logprobs

        # All run to their end, so that none is left behind when another fails.
        results = await asyncio.gather(*map(decide, tree.decisions), return_exceptions=True)
        for failure in filter(None, results):
            raise failure
        scores = tree.score(found)
        return Answer(
            scores.best,
            snapshot.version,
            scores.confidence,
            time.time(),
            probabilities=scores.probabilities,
            mass=scores.mass,
        )

    async def _run(self, prompt: Prompt, sampling: Sampling, shape: Shape = _PLAIN) -> Reply:
        async with self._slots:
            reply = self._questions.reply(prompt, sampling, shape=shape, priority=Priority.FLASH)
            async with aclosing(reply):
                async for _ in reply.deltas():
                    pass
        return reply


def flash_ready(query: FlashQuery, answer: Answer) -> dict[str, object]:
    """The payload that announces an answer, live or replayed."""
    payload: dict[str, object] = {
        "id": query.id,
        "query": query.text,
        "value": answer.value,
        "data_version": answer.version,
        "confidence": answer.confidence,
        "evaluated_at": int(answer.evaluated_at),
    }
    if answer.probabilities is not None:
        payload |= {"probabilities": answer.probabilities, "mass": answer.mass}
    return payload
