"""What the old generation shows of a session. Pure."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Any, Literal

from flashquery.answers import Answer
from flashquery.queries import FlashQuery
from service.api.legacy import protocol
from service.api.sessions.protocol import OldSession
from streams.manager import Manager
from streams.pushing import PushAck
from streams.session import Session
from streams.timeline import Turn

LABELS = frozenset({"legacy"})
"""Of old-style sessions."""


def is_legacy(session: Session) -> bool:
    """Whether it is an old-style session."""
    return session.labels >= LABELS


def created(session: Session, manager: Manager, flash_queries: int) -> protocol.InitObject:
    """A session that was just created."""
    return protocol.InitObject(
        session_id=session.id,
        type=type_name(session),
        n_tokens=session.tokens,
        context=manager.engine.facts.context,
        window_size=session.window.tokens or 0,
        flash_queries=flash_queries,
        pos_max=session.tokens - 1,
    )


def summary(session: Session, manager: Manager) -> OldSession:
    """A session in a list."""
    context = manager.engine.facts.context
    return {
        "session_id": session.id,
        "n_tokens": session.tokens,
        "context": context,
        "prefix_end": _prefix_end(session),
        "cache_usage": session.tokens / context,
        "created_at": int(session.created),
        "last_used_at": int(session.last_used),
        "in_use": session.running > 0,
    }


def state(session: Session, manager: Manager) -> protocol.StateObject:
    """A session as it is now, without its text."""
    return protocol.StateObject(
        **summary(session, manager),
        type=type_name(session),
        pos_max=session.tokens - 1,
        pos_next=session.tokens,
        data_region=_data_region(session),
        data_count=session.entries,
        pending_prefill=session.backlog.tokens + max(0, session.data_end - session.kv_tokens),
    )


def slots(session: Session) -> protocol.SlotsObject:
    """The parts of its stream. What stands before the first entry that can leave is the prefix."""
    timeline = session.timeline
    names: list[Literal["prefix", "data", "turn"]] = ["prefix"]
    names += ["turn" if isinstance(segment, Turn) else "data" for segment in timeline.segments]
    lengths = [_prefix_end(session), *(len(segment.tokens) for segment in timeline.segments)]
    places = pairwise(accumulate(lengths, initial=0))
    return protocol.SlotsObject(
        slots=[
            protocol.Slot(name=name, start=start, end=end, n_tokens=end - start)
            for name, (start, end) in zip(names, places, strict=True)
            if end > start
        ],
        prefix_end=_prefix_end(session),
        data_region=_data_region(session),
        pos_next=session.tokens,
        total_tokens=session.tokens,
    )


def pushed(ack: PushAck, manager: Manager) -> protocol.StreamPushObject:
    """The acknowledgement of a push."""
    return protocol.StreamPushObject(
        pushed=ack.pushed,
        dropped=ack.dropped,
        queue_size=ack.pending,
        queue_capacity=manager.limits.queue_entries,
        total_enqueued=ack.total_pushed,
        total_dropped=ack.total_dropped,
    )


def status(session: Session, manager: Manager) -> protocol.StatusObject:
    """How reading its stream goes."""
    entries = (*session.timeline.frozen, *session.timeline.data())
    microseconds = session.reading_seconds * 1e6
    return protocol.StatusObject(
        type=type_name(session),
        streaming=protocol.Streaming(
            running=streaming(session),
            error=session.failure is not None,
            queue_size=session.pending,
            queue_capacity=manager.limits.queue_entries,
            window_size=session.window.tokens or 0,
        ),
        statistics=protocol.StreamingStatistics(
            total_enqueued=session.queue.total_pushed,
            total_dropped=session.queue.total_dropped,
            batches_processed=session.batches,
            items_processed=session.covered,
            total_process_time_us=int(microseconds),
            avg_process_time_us=microseconds / session.batches if session.batches else 0.0,
        ),
        data=protocol.StreamedData(
            initialized=session.version > 0,
            data_count=session.entries,
            total_data_tokens=sum(len(entry.tokens) for entry in entries),
            pos_next=session.tokens,
        ),
    )


def streaming(session: Session) -> bool:
    """Whether its data is read as it comes."""
    return session.failure is None


def standing(query: FlashQuery, answer: Answer | None) -> dict[str, Any]:
    """A Flash Query in a list; every field is there, and ``has_answer`` says whether those of the answer mean
    anything.
    """
    return {
        "id": query.id,
        "query": query.text,
        "max_tokens": query.max_tokens,
        "n_tokens": len(query.tokens),
        "has_answer": answer is not None,
        "value": answer.value if answer else "",
        "data_version": answer.version if answer else 0,
        "confidence": answer.confidence if answer else 0.0,
        "evaluated_at": int(answer.evaluated_at) if answer else 0,
    }


def type_name(session: Session) -> str:
    """The type of its entries."""
    return "" if session.type is None else session.type.name


def _prefix_end(session: Session) -> int:
    # An empty stream has not even its head yet.
    return min(session.frozen_end, session.tokens)


def _data_region(session: Session) -> protocol.DataRegion:
    return protocol.DataRegion(start=_prefix_end(session), end=session.tokens, window_size=session.window.tokens)
