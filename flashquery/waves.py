"""When queries are evaluated: in waves, each over a snapshot.

Evaluation never blocks ingest, and newer data never aborts it: a wave runs to its end, then the newest version is next,
and versions in between are skipped. So answers keep coming however fast data does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from flashquery import answers
from flashquery.answers import Answer
from flashquery.asking import Asking
from flashquery.conditions import Values
from flashquery.eventlog import EventLog
from flashquery.events import Event
from flashquery.history import History
from flashquery.notify import Notifier
from flashquery.queries import FlashQuery, Registry
from flashquery.ready import Ready
from flashquery.schedule import Last, due_at
from flashquery.statistics import flat, line
from streams import tracing
from streams.errors import AskaheadError, Unavailable
from streams.journal import Journal
from streams.session import Session, Snapshot
from streams.tally import Over

log = logging.getLogger(__name__)

# When an engine that failed and lives is asked again; doubled each time that it fails.
_AGAIN_SECONDS = 0.5
_AGAIN_SECONDS_MAX = 60.0


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
class Standing:
    """A session's queries and how far they are evaluated.

    Attributes:
        registry: the queries.
        due: set when there may be something to evaluate.
        last: each query's last evaluation.
        values: the answer it gave.
        ready: the newest decision point, for sessions that keep one.
        task: runs the waves.
        changing: held by whoever changes or removes a query, until that is written.
    """

    registry: Registry
    due: asyncio.Event = field(default_factory=asyncio.Event)
    last: dict[int, Last] = field(default_factory=dict)
    values: dict[int, str] = field(default_factory=dict)
    ready: Ready | None = None
    task: asyncio.Task[None] | None = None
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)


class Waves:
    """Evaluates.

    Args:
        asking: puts queries to the model.
        journal: where answers and their events go.
        history: of answers.
        log: of events.
        evaluated: called after each evaluation.
        notifier: told of every answer.
    """

    def __init__(
        self,
        asking: Asking,
        journal: Journal,
        history: History,
        log: EventLog,
        evaluated: Callable[[Evaluated], None],
        notifier: Notifier | None,
    ) -> None:
        self._asking = asking
        self._journal = journal
        self._history = history
        self._log = log
        self._evaluated = evaluated
        self._notifier = notifier

    async def run(self, session: Session, standing: Standing) -> None:
        """Evaluate a session's queries for as long as it lives."""
        failing = False
        later: float | None = None
        again = _AGAIN_SECONDS
        while True:
            await _set_or_late(standing.due, later)
            standing.due.clear()
            if not session.version:
                continue
            wave, later = self._due(session, standing)
            with _span(session, wave):
                results = await asyncio.gather(*wave, return_exceptions=True)
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
            if wave:
                failing = bool(failures)
            if any(isinstance(failure, Unavailable) and failure.retry_after for failure in failures):
                # Newer data may never come, and these answers are wanted all the same.
                await self._asking.alive()
                later = asyncio.get_running_loop().time() + again
                again = min(2 * again, _AGAIN_SECONDS_MAX)
            elif wave:
                again = _AGAIN_SECONDS

    def _due(self, session: Session, standing: Standing) -> tuple[list[Coroutine[Any, Any, None]], float | None]:
        """What is to be evaluated over the present version, and when to look again if no other comes."""
        now = asyncio.get_running_loop().time()
        # Copies all tokens: not for a version that nobody is asked over.
        snapshot = cache(session.snapshot)

        @cache
        def statistics(over: Over) -> Values:
            return flat(session.statistics(over))

        @cache
        def preface(over: Over | None) -> str:
            return "" if over is None else line(statistics(over), over)

        wave: list[Coroutine[Any, Any, None]] = []
        later: list[float] = []
        if session.pre_decode and (standing.ready is None or standing.ready.version != session.version):
            # First, since it is the shortest of all.
            wave.append(self._decide(session, standing, snapshot()))
        for query in standing.registry:
            at = due_at(query, standing.last.get(query.id), session.version, now, statistics)
            if at is None:
                continue
            if at > now:
                later.append(at)
                continue
            wave.append(self._evaluate(session, standing, query, snapshot(), now, preface(query.with_stats)))
        return wave, min(later, default=None)

    async def _evaluate(
        self, session: Session, standing: Standing, query: FlashQuery, snapshot: Snapshot, now: float, preface: str
    ) -> None:
        with tracing.child("flash query", {"askahead.flash.id": query.id}) as span:
            answer = await self._asking.answer(session, query, snapshot, preface)
            if query not in standing.registry:
                return  # removed meanwhile, or changed, and then due again
            standing.last[query.id] = Last(snapshot.version, now)
            changed = standing.values.get(query.id) != answer.value
            standing.values[query.id] = answer.value
            span.set({"askahead.flash.changed": changed})
            self._publish(session, standing, query, replace(answer, changed=changed))
        taken = asyncio.get_running_loop().time() - now
        self._evaluated(Evaluated(taken, session.version - snapshot.version))

    async def _decide(self, session: Session, standing: Standing, snapshot: Snapshot) -> None:
        standing.ready = await self._asking.ready(session, snapshot)

    def _publish(self, session: Session, standing: Standing, query: FlashQuery, answer: Answer) -> None:
        ready = flash_ready(query, answer)
        event = Event("flash_ready", {**ready, "changed": answer.changed})
        if self._notifier is not None:
            self._notifier.answered(session.id, query.id, {**ready, "evaluated_at": int(answer.evaluated_at)})

        past = self._history.save(session.id, query.id, answer)
        self._journal.put(session.id, ("history", query.id, answer.version), past)
        told = [*answers.save(session.id, query.id, answer), *self._log.publish(session.id, event)]

        def stored(_: int) -> None:
            standing.registry.stored(query, answer)

        # Behind the event that tells of its version, though an older answer may be waiting before that.
        self._journal.put(session.id, query.id, told, stored, behind=True)


def _span(session: Session, wave: Sequence[object]) -> tracing.Span:
    """Of evaluating all that is due, as part of what has made the version."""
    if not wave or not tracing.on():
        return tracing.OFF
    attributes: tracing.Attributes = {
        "gen_ai.conversation.id": session.id,
        "askahead.data_version": session.version,
        "askahead.evaluations": len(wave),
    }
    return tracing.start("flash wave", attributes, parent=session.cause)


async def _set_or_late(event: asyncio.Event, when: float | None) -> None:
    """Wait until the event is set, or until that time of the loop's clock."""
    with suppress(TimeoutError):
        async with asyncio.timeout_at(when):
            await event.wait()


def flash_ready(query: FlashQuery, answer: Answer) -> dict[str, object]:
    """The payload that announces an answer, live or replayed.

    ``evaluated_at`` has its fractions, which tell two answers over the same version apart; clients get whole seconds.
    """
    payload: dict[str, object] = {
        "id": query.id,
        "query": query.text,
        "value": answer.value,
        "data_version": answer.version,
        "confidence": answer.confidence,
        "evaluated_at": answer.evaluated_at,
    }
    if answer.probabilities is not None:
        payload |= {"probabilities": answer.probabilities, "mass": answer.mass}
    return payload
