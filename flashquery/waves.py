"""When queries are evaluated: in waves, each over a snapshot.

Evaluation never blocks ingest, and newer data never aborts it: a wave runs to its end, then the newest version is next,
and versions in between are skipped. So answers keep coming however fast data does.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from redis.asyncio.client import Pipeline

from flashquery.answers import Answer, AnswerCache
from flashquery.asking import Asking
from flashquery.events import Event
from flashquery.notify import Notifier
from flashquery.outbox import Outbox
from flashquery.queries import FlashQuery, Registry
from flashquery.ready import Ready
from streams.errors import AskaheadError
from streams.session import Session, Snapshot

log = logging.getLogger(__name__)


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
        versions: of each query's newest answer.
        values: its text.
        ready: the newest decision point, for sessions that keep one.
        task: runs the waves.
    """

    registry: Registry
    due: asyncio.Event = field(default_factory=asyncio.Event)
    versions: dict[int, int] = field(default_factory=dict)
    values: dict[int, str] = field(default_factory=dict)
    ready: Ready | None = None
    task: asyncio.Task[None] | None = None


class Waves:
    """Evaluates.

    Args:
        asking: puts queries to the model.
        outbox: where answers and their events go.
        evaluated: called after each evaluation.
        notifier: told of every answer.
    """

    def __init__(
        self, asking: Asking, outbox: Outbox, evaluated: Callable[[Evaluated], None], notifier: Notifier | None
    ) -> None:
        self._asking = asking
        self._outbox = outbox
        self._evaluated = evaluated
        self._notifier = notifier

    async def run(self, session: Session, standing: Standing) -> None:
        """Evaluate a session's queries for as long as it lives."""
        failing = False
        while True:
            await standing.due.wait()
            standing.due.clear()
            if not session.version:
                continue
            snapshot = session.snapshot()
            wave = [
                self._evaluate(session, standing, query, snapshot)
                for query in standing.registry
                if standing.versions.get(query.id) != snapshot.version
            ]
            if session.pre_decode and (standing.ready is None or standing.ready.version != snapshot.version):
                # First, since it is the shortest of all.
                wave.insert(0, self._decide(session, standing, snapshot))
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
            failing = bool(failures)

    async def _evaluate(self, session: Session, standing: Standing, query: FlashQuery, snapshot: Snapshot) -> None:
        started = time.monotonic()
        answer = await self._asking.answer(session, query, snapshot)
        if query not in standing.registry:
            return  # removed meanwhile, or changed, and then due again
        standing.versions[query.id] = snapshot.version
        changed = standing.values.get(query.id) != answer.value
        standing.values[query.id] = answer.value
        self._publish(session, query, answer, changed)
        self._evaluated(Evaluated(time.monotonic() - started, session.version - snapshot.version))

    async def _decide(self, session: Session, standing: Standing, snapshot: Snapshot) -> None:
        standing.ready = await self._asking.ready(session, snapshot)

    def _publish(self, session: Session, query: FlashQuery, answer: Answer, changed: bool) -> None:
        ready = flash_ready(query, answer)
        event = Event("flash_ready", {**ready, "changed": changed})
        if self._notifier is not None:
            self._notifier.answered(session.id, query.id, ready)

        def store(pipe: Pipeline) -> None:
            AnswerCache.save(pipe, session.id, query.id, answer)
            event.publish(pipe, session.id)

        self._outbox.put(session.id, query.id, store)


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
