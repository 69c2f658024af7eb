"""Every Redis key and channel of Flash Queries, and how long it lives.

A session's keys share the hash tag ``{id}``, so that on a cluster they live on one node. One key is
of all sessions.
"""

from __future__ import annotations

from typing import Final

# Answers are deleted with their session. The age only collects what a server that was killed left behind; it is
# longer than any stream is expected to stay silent while somebody still watches it.
ANSWERS_SECONDS: Final = 30 * 24 * 3600

# How long a deletion can still be told to a subscriber that was away; a reconnecting client takes seconds.
DELETED_SECONDS: Final = 3600

# Stream: the sessions deleted last, of all sessions. What is told of one stands in its own log, under its own id.
DELETIONS: Final = "askahead:deletions"
# More are known to be too many to tell, and their subscribers start again.
DELETIONS_MAX: Final = 10_000

# One pattern for all sessions: a process listens once, however many clients it has.
EVENTS_PATTERN: Final = "askahead:{*}:events"


def answers(session_id: str) -> str:
    """Hash: query id to msgpack of an :class:`~flashquery.answers.Answer`."""
    return f"askahead:{{{session_id}}}:answers"


def queries(session_id: str) -> str:
    """Hash: query id to msgpack of its registration; ``last`` is the highest id there was. Lives as its session."""
    return f"askahead:{{{session_id}}}:queries"


def history(session_id: str, query_id: int) -> str:
    """Sorted set: msgpack of each past :class:`~flashquery.answers.Answer` of a query, by data version."""
    return f"askahead:{{{session_id}}}:history:{query_id}"


def events(session_id: str) -> str:
    """Channel: id in the log, space, msgpack of an :class:`~flashquery.events.Event`."""
    return f"askahead:{{{session_id}}}:events"


def event_log(session_id: str) -> str:
    """Stream: the session's last events, in a field ``event`` each, as in the channel."""
    return f"askahead:{{{session_id}}}:events:log"


def session_of(channel: str) -> str:
    """The session id inside a channel name."""
    return channel[channel.index("{") + 1 : channel.rindex("}")]
