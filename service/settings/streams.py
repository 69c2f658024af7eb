"""Settings of streams and of what is asked over them."""

from __future__ import annotations

from pydantic import BaseModel

from service.settings.fields import MIB, panel

_sessions, _questions = panel("Sessions"), panel("Questions")


class StreamSettings(BaseModel):
    """Bounds of sessions, questions and Flash Queries."""

    max_sessions: int = _sessions(256, "Most live sessions; one more is refused with 409.", ge=1, le=65_536)
    session_idle_seconds: float = _sessions(
        3600.0,
        "A session nobody has used for this long, in seconds, is deleted, so that forgotten ones free their memory.",
        ge=1,
        le=31_536_000,
    )
    queue_entries: int = _sessions(
        4096,
        "Most entries pushed and not yet read, per session; beyond it the oldest are dropped, and counted.",
        ge=1,
        le=1_000_000,
    )
    queue_bytes: int = _sessions(
        8 * MIB,
        "The same bound in bytes of text, per session, so that large entries cannot exhaust memory.",
        ge=1024,
        le=1024 * MIB,
    )
    entry_bytes: int = _sessions(
        1 * MIB,
        "Largest single entry, in bytes of UTF-8; larger ones are refused with 400.",
        ge=1,
        le=64 * MIB,
    )
    max_questions: int = _questions(
        32,
        "Most questions in flight over all sessions; one more is refused with 429, since each slows the others.",
        ge=1,
        le=4096,
    )
    max_questions_per_session: int = _questions(
        8, "The same per session, so that one session cannot take every place.", ge=1, le=4096
    )
    max_flash_queries: int = _questions(
        20, "Most Flash Queries per session: each is answered again after every batch.", ge=1, le=1024
    )
    flash_concurrency: int = _questions(
        16,
        "Most Flash Queries evaluated at once over all sessions; a wave of them shares engine steps.",
        ge=1,
        le=1024,
    )
    max_webhooks: int = _questions(
        1024,
        "Most Flash Queries with a webhook over all sessions; each may keep one message waiting.",
        ge=1,
        le=65_536,
    )
    notify_private: bool = _questions(
        False,
        "true lets webhooks be at loopback, private and reserved addresses. Off by default: whoever may register a"
        " query could reach what only this machine can.",
    )
    flash_history: int = _questions(
        1000,
        "Past answers kept per Flash Query, so that a dashboard can draw them; the oldest go. 0 keeps none.",
        ge=0,
        le=100_000,
    )
    wait_seconds_max: float = _questions(
        60.0,
        "Longest wait, in seconds, for data or an answer that is still to come (long polls, `after`).",
        ge=0,
        le=600,
    )
