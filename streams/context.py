"""Whom work is for: the request and the session that lines of the log are about.

Tasks inherit both from whoever starts them. What a session does on its own account outlives the request that began it,
and starts from :func:`of` instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar

REQUEST: ContextVar[str] = ContextVar("request_id", default="")
"""Id of the request that is being served; empty outside of any."""

SESSION: ContextVar[str] = ContextVar("session_id", default="")
"""Id of the session that is being worked on; likewise."""


def of(session_id: str) -> Context:
    """The context of a task that works for a session, and for no request, whoever starts it."""
    context = Context()
    context.run(SESSION.set, session_id)
    return context


@contextmanager
def about(session_id: str) -> Iterator[None]:
    """Inside, it is this session that is being worked on."""
    token = SESSION.set(session_id)
    try:
        yield
    finally:
        SESSION.reset(token)
