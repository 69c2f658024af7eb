"""Webhooks: what is told of changed answers, how it is signed, and when it is tried again. Pure, no I/O.

Messages and signatures are those of the Standard Webhooks specification, so that its libraries verify them. Whoever
sends is above, and is known here as a :class:`Notifier`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any, Protocol

import orjson

_PREFIX = "whsec_"
_KEY_BYTES = range(24, 65)
_NEW_KEY_BYTES = 32
# With the delays below four to nine minutes, after a delivery; longer while failures go on, or if the receiver asks.
_TRIES_MAX = 10
_DELAY_MAX = 300.0
_RETRIED = frozenset({408, 429})


@dataclass(frozen=True, slots=True)
class Webhook:
    """Who is told of a query's answers.

    Attributes:
        url: where messages go.
        key: signs them; shared with the receiver.
    """

    url: str
    key: bytes = field(repr=False)

    @property
    def secret(self) -> str:
        """The key as receivers configure it."""
        return _PREFIX + base64.b64encode(self.key).decode()


class Notifier(Protocol):
    """Sends to webhooks in the background. Nothing here waits or raises."""

    def watch(self, session_id: str, query_id: int, webhook: Webhook) -> None:
        """From now on changes of this query's answer are told."""

    def answered(self, session_id: str, query_id: int, answer: Mapping[str, Any]) -> None:
        """An answer is there, changed or not.

        Args:
            session_id: of a session.
            query_id: of a query of it, watched or not.
            answer: the payload of its ``flash_ready`` event.
        """

    def forget(self, session_id: str, query_id: int | None = None) -> None:
        """A query is gone, or all of a session's: what was not delivered no longer will be."""


def new_key() -> bytes:
    """A random key."""
    return secrets.token_bytes(_NEW_KEY_BYTES)


def key_of(secret: str) -> bytes:
    """The key that a secret spells. Raises ValueError."""
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(_PREFIX) or len(key) not in _KEY_BYTES:
        raise ValueError(f"must be {_PREFIX} and the base64 of {_KEY_BYTES.start} to {_KEY_BYTES.stop - 1} bytes")
    return key


@dataclass(slots=True)
class Change:
    """An answer that is to be told.

    Attributes:
        id: of the message, the same whenever it is sent.
        answer: the payload of its ``flash_ready`` event.
        tries: how often it was sent in vain.
    """

    id: str
    answer: Mapping[str, Any]
    tries: int = 0


class Outcome(Enum):
    """How an attempt to tell ended."""

    DELIVERED = "delivered"
    FAILED = "failed"
    """For now; worth another try."""
    REFUSED = "refused"
    """This message never will be taken."""
    GONE = "gone"
    """No message ever will be again."""


def outcome(status: int) -> Outcome:
    """What a receiver's status means. Redirects are refusals: they are not followed."""
    if 200 <= status < 300:
        return Outcome.DELIVERED
    if status == 410:
        return Outcome.GONE
    return Outcome.FAILED if status in _RETRIED or status >= 500 else Outcome.REFUSED


@dataclass(slots=True)
class Lane:
    """What one webhook was told, and what it has yet to be told: at most one change, the newest.

    Attributes:
        session_id: the query's session.
        webhook: who is told.
        waiting: what is to be told, also while it is being sent.
        failures: attempts in vain since the last one that went well.
        stopped: the receiver wants no more.
    """

    session_id: str
    webhook: Webhook
    waiting: Change | None = None
    failures: int = 0
    stopped: bool = False
    _newest: str | None = None
    _told: str | None = None
    # Whether the receiver has nothing newer than what it acknowledged: a failed attempt may have reached it.
    _certain: bool = True

    def answered(self, answer: Mapping[str, Any]) -> None:
        """Take note of an answer; it waits to be told if that is news to the receiver."""
        value = answer["value"]
        if self.stopped or value == self._newest:
            return
        self._newest = value
        known = self._certain and value == self._told
        self.waiting = None if known else Change(f"msg_{secrets.token_hex(12)}", answer)

    def begin(self) -> Change | None:
        """What to send now; :meth:`settle` follows."""
        if self.waiting is not None:
            self._certain = False
        return self.waiting

    def settle(self, change: Change, ended: Outcome) -> bool:
        """Account for an attempt. Returns whether ``change`` was given up.

        Args:
            change: what was sent.
            ended: how it went.
        """
        if ended is Outcome.DELIVERED:
            self._told, self._certain, self.failures = change.answer["value"], True, 0
            if self.waiting is not None and self.waiting.answer["value"] == self._told:
                self.waiting = None
            return False
        self.failures += 1
        change.tries += 1
        if ended is Outcome.GONE:
            self.stopped, self.waiting = True, None
            return True
        over = self.waiting is change and (ended is Outcome.REFUSED or change.tries >= _TRIES_MAX)
        if over:
            self.waiting = None
        return over

    def message(self, change: Change) -> bytes:
        """The body that tells of a change, as JSON."""
        at = datetime.fromtimestamp(change.answer["evaluated_at"], UTC)
        data: dict[str, Any] = {"session_id": self.session_id, **change.answer}
        if self._told is not None:
            data["previous_value"] = self._told
        timestamp = at.isoformat().replace("+00:00", "Z")
        return orjson.dumps({"type": "flash.answer_changed", "timestamp": timestamp, "data": data})


def headers(webhook: Webhook, message_id: str, body: bytes, now: float) -> dict[str, str]:
    """The headers of one attempt.

    Args:
        webhook: whose key signs.
        message_id: of the message, without full stops.
        body: the message.
        now: Unix seconds; receivers refuse old attempts.
    """
    timestamp = str(int(now))
    signed = b".".join((message_id.encode(), timestamp.encode(), body))
    signature = base64.b64encode(hmac.digest(webhook.key, signed, hashlib.sha256)).decode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{signature}",
        "Content-Type": "application/json",
    }


def delay(failures: int, jitter: float, asked: float = 0.0) -> float:
    """How long to wait after failed attempts, in seconds: doubling, by half at random, at most five minutes.

    Args:
        failures: attempts in vain, one after the other, at least 1.
        jitter: random number of 0 to 1, so that many webhooks do not come back at once.
        asked: what the receiver asked for.
    """
    backoff = 2.0 ** min(failures - 1, 16) * (0.5 + jitter / 2)
    return min(max(backoff, asked), _DELAY_MAX)


def retry_after(header: str | None, now: float) -> float:
    """Seconds that a ``Retry-After`` header asks for, whether it counts them or names a date; 0 if it says neither.

    Args:
        header: its value, if there is one.
        now: Unix seconds.
    """
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return 0.0
