"""A session as lists show it, whichever server is asked. Pure."""

from __future__ import annotations

from typing import Any

from flashquery.ready import Ready
from service.api.legacy.views import is_legacy, summary
from service.api.sessions.protocol import SessionObject
from streams.manager import Manager
from streams.session import Session


def described(session: Session, manager: Manager, ready: Ready | None) -> dict[str, Any]:
    """The session, ``session``; for old clients, if it is one of theirs, ``old``; and ``at``, its place in lists."""
    return {
        "at": [int(session.created * 1000), session.id],
        "session": SessionObject.of(session, ready).model_dump(exclude_none=True),
        "old": summary(session, manager) if is_legacy(session) else None,
    }
