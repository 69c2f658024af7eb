"""Every Redis key of the streams, and how long it lives.

A session's keys share the hash tag ``{id}``, so that on a cluster they live on one node and a script may touch all of
them. They are the streams themselves, so none has an age: they go with the session.
"""

from __future__ import annotations

from typing import Final

SESSIONS: Final = "askahead:sessions"
"""Set: the ids of all sessions."""

TOMBSTONE_SECONDS: Final = 3600
"""How long the guard of a deleted session stays. What a server that lost the session, and does not know it yet, still
wants to write is refused by it; no server goes on for so long without learning."""


def guard(session_id: str) -> str:
    """Hash: ``fence``, the number of the owner; ``batch``, that of the last flush that was applied; ``ended``, the
    number of the owner that deleted the session.
    """
    return f"askahead:{{{session_id}}}:guard"


def owner(session_id: str) -> str:
    """String: who owns the session; it expires where the lease is not renewed."""
    return f"askahead:{{{session_id}}}:owner"


def meta(session_id: str) -> str:
    """Hash: what the session was created with, and figures for whoever does not own it."""
    return f"askahead:{{{session_id}}}:meta"


def snapshot(session_id: str) -> str:
    """String: msgpack of the session's state as of some record of its log."""
    return f"askahead:{{{session_id}}}:snapshot"


def log(session_id: str) -> str:
    """Stream: msgpack of each record after the snapshot."""
    return f"askahead:{{{session_id}}}:log"
