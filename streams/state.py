"""All that outlives the process of a session, and a session that has it again."""

from __future__ import annotations

from streams.records import State
from streams.session import Session
from streams.template import Frame


def captured(session: Session, number: int) -> State:
    """All that is settled, and all that waits, as of the log's record of that number."""
    unsettled = session.backlog.batch
    return State(
        number=number,
        version=session.version,
        covered=session.covered,
        turns=session.turns,
        batches=session.batches,
        reading_seconds=session.reading_seconds,
        evicted=session.evicted,
        total_pushed=session.queue.total_pushed,
        total_dropped=session.queue.total_dropped,
        system=session.system,
        head=session.frame.head,
        tail=session.frame.tail,
        timeline=session.timeline.before(unsettled.entries if unsettled else ()),
        pending=session.backlog.waiting(),
        tally=session.tally.state(),
    )


def restore(session: Session, state: State) -> None:
    """Take on a state, but for what waits. Only for a session to which nothing has happened."""
    session.version, session.covered = state.version, state.covered
    session.turns, session.batches = state.turns, state.batches
    session.reading_seconds, session.evicted = state.reading_seconds, state.evicted
    session.system, session.frame, session.timeline = state.system, Frame(state.head, state.tail), state.timeline
    session.settled = len(session.timeline)
    present = session.timeline.data()
    session.entries = len(session.timeline.frozen) + len(present)
    session.tally.restore(state.tally, present)
