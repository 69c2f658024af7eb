"""Sending to webhooks: where clients say, and never to where they should not reach."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import aiohttp
from yarl import URL

from flashquery.notify import Change, Lane, Outcome, Webhook, delay, headers, key_of, new_key, outcome, retry_after
from service.addresses import check_url, is_public, names_private
from service.metrics import Counters
from service.resolver import Resolver
from streams import context
from streams.errors import Conflict, InvalidInput

log = logging.getLogger(__name__)

_TIMEOUT = aiohttp.ClientTimeout(total=10, connect=5)
_AT_ONCE = 64
_AT_ONCE_PER_RECEIVER = 4


class NotPublic(OSError):
    """A connection to a private address was about to be made."""

    def __init__(self) -> None:
        super().__init__("the address is not public")


def _public_socket(address: tuple[Any, ...]) -> socket.socket:
    """A socket for an address that is about to be connected to, however it was found.

    Raises:
        NotPublic: it is not public.
    """
    family, kind, protocol, _, peer = address
    if not is_public(peer[0]):
        raise NotPublic
    return socket.socket(family, kind, protocol)


@dataclass(slots=True)
class _Watched:
    """A webhook's lane, and the task that sends what waits in it."""

    lane: Lane
    task: asyncio.Task[None] | None = None


class Webhooks:
    """A :class:`~flashquery.notify.Notifier`. Use as an async context manager: it owns a task per webhook that has
    something to tell.

    Args:
        counters: told what happens.
        private: whether messages may go to addresses that are not public.
        limit: webhooks in all.
        second: how long a second of waiting between attempts takes, in seconds.
    """

    def __init__(self, counters: Counters, *, private: bool, limit: int, second: float = 1.0) -> None:
        self._counters = counters
        self._private = private
        self._limit = limit
        self._second = second
        self._watched: dict[tuple[str, int], _Watched] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._receivers: WeakValueDictionary[URL, asyncio.Semaphore] = WeakValueDictionary()
        self._http: aiohttp.ClientSession

    async def __aenter__(self) -> Webhooks:
        connector = aiohttp.TCPConnector(
            resolver=Resolver(),
            use_dns_cache=False,
            # Every attempt connects anew, so every attempt is checked.
            force_close=True,
            limit=0,
            socket_factory=None if self._private else _public_socket,
        )
        self._http = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "askahead"},
            timeout=_TIMEOUT,
            trust_env=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.close()

    def accept(self, url: str, secret: str | None) -> Webhook:
        """A webhook that :meth:`watch` will take.

        Args:
            url: where to.
            secret: what signs; None to make one.

        Raises:
            InvalidInput: nothing may be sent there, or one of them is malformed.
            Conflict: there are too many webhooks.
        """
        try:
            if names_private(check_url(url)) and not self._private:
                raise ValueError("must be a public address; the server's operator can allow others (notify_private)")
        except ValueError as error:
            raise InvalidInput(f"notify: the URL {error}", param="notify") from None
        try:
            key = new_key() if secret is None else key_of(secret)
        except ValueError as error:
            raise InvalidInput(f"notify: the secret {error}", param="notify") from None
        if len(self._watched) >= self._limit:
            raise Conflict(
                f"this server has {self._limit} flash queries with a webhook, which is the limit; delete one first",
                code="webhook_limit",
                param="notify",
            )
        return Webhook(url, key)

    def watch(self, session_id: str, query_id: int, webhook: Webhook) -> None:
        self._watched[session_id, query_id] = _Watched(Lane(session_id, webhook))

    def answered(self, session_id: str, query_id: int, answer: Mapping[str, Any]) -> None:
        watched = self._watched.get((session_id, query_id))
        if watched is None:
            return
        watched.lane.answered(answer)
        if watched.lane.waiting is not None and (watched.task is None or watched.task.done()):
            # It goes on beyond the evaluation that it begins with.
            telling = self._tell(watched.lane, f"{session_id}/{query_id}")
            watched.task = asyncio.create_task(telling, name="notify", context=context.of(session_id))
            self._tasks.add(watched.task)
            watched.task.add_done_callback(self._tasks.discard)

    def forget(self, session_id: str, query_id: int | None = None) -> None:
        for key in [key for key in self._watched if key[0] == session_id and query_id in (None, key[1])]:
            task = self._watched.pop(key).task
            if task is not None:
                task.cancel()

    async def _tell(self, lane: Lane, name: str) -> None:
        """Send what waits until nothing does."""
        receiver = self._receiver(lane.webhook)
        while lane.waiting is not None:
            async with receiver, self._slots:
                change = lane.begin()
                if change is None:
                    return
                ended, asked, why = await self._attempt(lane, change)
            given_up = lane.settle(change, ended)
            if ended is Outcome.DELIVERED:
                self._counters.notifications_delivered += 1
                continue
            if given_up:
                self._counters.notifications_failed += 1
                log.warning(
                    "the webhook of flash query %s was not told of an answer; attempt %d, the last one: %s%s",
                    name,
                    change.tries,
                    why,
                    "; it is not called again" if lane.stopped else "",
                )
            if lane.stopped:
                return
            await asyncio.sleep(self._second * delay(lane.failures, random.random(), asked))  # noqa: S311

    async def _attempt(self, lane: Lane, change: Change) -> tuple[Outcome, float, str]:
        """Send once. How it went, the seconds that the receiver asks for, and why it went wrong."""
        body, now = lane.message(change), time.time()
        try:
            async with self._http.post(
                URL(lane.webhook.url),
                data=body,
                headers=headers(lane.webhook, change.id, body, now),
                allow_redirects=False,
            ) as response:
                # The body stays unread: leaving here closes the connection.
                wait = retry_after(response.headers.get("Retry-After"), now)
                return outcome(response.status), wait, f"status {response.status}"
        except aiohttp.ClientConnectorError as error:
            refused = isinstance(error.os_error, NotPublic)
            return Outcome.REFUSED if refused else Outcome.FAILED, 0.0, str(error.os_error)
        except TimeoutError:
            return Outcome.FAILED, 0.0, f"no answer within {_TIMEOUT.total:g} s"
        except (aiohttp.ClientError, OSError) as error:
            return Outcome.FAILED, 0.0, type(error).__name__
        except ValueError:
            return Outcome.REFUSED, 0.0, "the host's name is no name"

    def _receiver(self, webhook: Webhook) -> asyncio.Semaphore:
        """Bounds what goes to one receiver at once, so that a slow one leaves room for others."""
        origin = URL(webhook.url).origin()
        receiver = self._receivers.get(origin)
        if receiver is None:
            receiver = self._receivers[origin] = asyncio.Semaphore(_AT_ONCE_PER_RECEIVER)
        return receiver
