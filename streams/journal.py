"""The way out to Redis: ordered, atomic per session, fenced, retried, never applied twice.

Whoever has something to write hands it in and goes on, or waits until it is written. One task sends everything that
waits as one pipeline, so that what was handed in during a round trip shares the next. All writes of a session in a
flush are one script call: they are applied together, or not at all where another server owns the session by now. Each
flush of a session has a number, so that one whose reply was lost can be sent again.

There are two kinds of writes. *Records* must all arrive. *State* is coalesced: a newer write of the same key replaces
an older one that has not left yet, so that what waits for a Redis that is away is bounded by the number of keys.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from streams import context, keys, tracing
from streams.errors import Unavailable
from streams.store import execute, in_time

log = logging.getLogger(__name__)

Command = tuple[str | bytes | int | float, ...]
"""A Redis command and its arguments. ``LOG key payload`` appends to a stream under the session's next number; ``EVENT
stream channel limit payload`` appends to a bounded stream and publishes the same, with the id that it got before it."""

UNSURE = "outcome_unknown"
"""Code of the refusal where it cannot be told whether something was stored."""

WRITE_SECONDS = 5.0
"""How long a client waits for what it sent to be written."""

_RETRY_SECONDS = 0.25
# What one session may send at once: a script call holds Redis up.
_FLUSH_BYTES = 1 << 20

_SCRIPT = """
local guard = redis.call('HMGET', KEYS[1], 'fence', 'batch', 'ended')
if guard[3] == ARGV[1] then return 'OK' end
if guard[1] ~= ARGV[1] then return 'FENCED' end
if guard[2] and tonumber(guard[2]) >= tonumber(ARGV[2]) then return 'OK' end
local at = 3
while at <= #ARGV do
  local last = at + tonumber(ARGV[at])
  if ARGV[at + 1] == 'EVENT' then
    local id = redis.call('XADD', ARGV[at + 2], 'MAXLEN', '~', ARGV[at + 4], '*', 'event', ARGV[at + 5])
    redis.call('PUBLISH', ARGV[at + 3], id .. ' ' .. ARGV[at + 5])
  else
    redis.call(unpack(ARGV, at + 1, last))
  end
  at = last + 1
end
redis.call('HSET', KEYS[1], 'batch', ARGV[2])
return 'OK'
"""
_SHA = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()


@dataclass(eq=False, slots=True)
class _Write:
    """Commands that stay together.

    Attributes:
        size: bytes, about.
        number: of the newest record as of this write.
        context: of whoever handed it in, in which it is applied.
        span: of its being written.
    """

    commands: Sequence[Command]
    size: int
    applied: Callable[[int], None] | None = None
    written: asyncio.Future[None] | None = None
    number: int = 0
    context: Context = field(default_factory=copy_context)
    span: tracing.Span = tracing.OFF


@dataclass(eq=False, slots=True)
class _Lane:
    """One session's writes.

    Attributes:
        fence: number of this server's ownership.
        logged: number of the newest record.
        batch: number of the newest flush.
        waiting: what has not left, by key, in order.
        sending: what has left and is not confirmed.
        arguments: the same for the script; it is not changed until it is confirmed.
        still: set while nothing is sent that is not confirmed.
        unsure: done when it is known of a write that nobody waits for any more whether it is written.
    """

    fence: int
    logged: int = 0
    batch: int = 0
    waiting: dict[Hashable, _Write] = field(default_factory=dict)
    sending: list[_Write] = field(default_factory=list)
    arguments: list[str | bytes | int | float] = field(default_factory=list)
    still: asyncio.Event = field(default_factory=asyncio.Event)
    unsure: set[asyncio.Future[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.still.set()

    def load(self) -> bool:
        """Get a flush ready, unless one is not confirmed yet; whether there is something to send."""
        if self.sending or not self.waiting:
            return bool(self.sending)
        self.still.clear()
        size = 0
        while self.waiting and size < _FLUSH_BYTES:
            write = self.waiting.pop(next(iter(self.waiting)))
            self.sending.append(write)
            size += write.size
        self.batch += 1
        self.arguments = [self.fence, self.batch]
        for write in self.sending:
            for command in write.commands:
                self._add(command)
            write.number = self.logged
        return True

    def _add(self, command: Command) -> None:
        if command[0] == "LOG":
            self.logged += 1
            command = ("XADD", command[1], f"{self.logged}-0", "record", command[2])
        self.arguments += (len(command), *command)


class Journal:
    """Use as an async context manager: it owns the sending task.

    Args:
        redis: where to.
        limit: bytes of records that may wait; more are refused.
        lost: called with the id of a session that another server owns by now.

    Attributes:
        failing: Redis does not answer.
    """

    def __init__(self, redis: Redis, limit: int = 64 << 20, lost: Callable[[str], None] = lambda _: None) -> None:
        self._redis = redis
        self._limit = limit
        self._lost = lost
        self._lanes: dict[str, _Lane] = {}
        self._held = 0
        self._ready = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._task: asyncio.Task[None] | None = None
        self.failing = False

    async def __aenter__(self) -> Journal:
        self._task = asyncio.create_task(self._run(), name="journal")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.flush(1.0)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for session_id in tuple(self._lanes):
            self.close(session_id)

    def open(self, session_id: str, fence: int, logged: int = 0) -> None:
        """Take writes of a session from now on.

        Args:
            session_id: whose.
            fence: number of this server's ownership; its flushes are counted from 1.
            logged: number of the newest record of its log.
        """
        self.close(session_id)
        self._lanes[session_id] = _Lane(fence, logged)

    def close(self, session_id: str) -> None:
        """Forget a session and what it still has to write, without having it written."""
        lane = self._lanes.pop(session_id, None)
        if lane is None:
            return
        for write in (*lane.sending, *lane.waiting.values()):
            self._settle(write, self.moved(session_id))
        lane.still.set()
        self._tell_if_empty()

    # What waits

    def put(
        self,
        session_id: str,
        what: Hashable,
        commands: Sequence[Command],
        applied: Callable[[int], None] | None = None,
        *,
        behind: bool = False,
    ) -> None:
        """Write state. What is unsent of the same session and ``what`` is replaced, in its place.

        Args:
            session_id: whose it is; nothing happens where that is not open.
            what: what it writes.
            commands: the commands.
            applied: as of :meth:`write`; not called for what was replaced.
            behind: it goes behind everything that was handed in before instead.
        """
        lane = self._lanes.get(session_id)
        if lane is None:
            return
        if (replaced := lane.waiting.get(what)) is not None:
            replaced.span.set({"askahead.replaced": True})
            replaced.span.end()
        if behind:
            lane.waiting.pop(what, None)
        # Nobody asks about what nothing follows from.
        span = tracing.OFF if applied is None else _span(session_id)
        lane.waiting[what] = _Write(commands, _size(commands), applied, span=span)
        self._wake()

    def check_room(self, size: int) -> None:
        """Refuse a record of so many bytes where too much waits for a Redis that is away.

        Raises:
            Unavailable: it does.
        """
        if self._held + size > self._limit:
            raise away(" and what waits for it has reached its bound; try again shortly")

    def hand_in(
        self,
        session_id: str,
        commands: Sequence[Command],
        applied: Callable[[int], None] = lambda _: None,
        *,
        timeout: float | None = WRITE_SECONDS,
    ) -> Callable[[], Coroutine[Any, Any, None]]:
        """Have records written behind everything that was handed in before. Returns what waits until they are.

        Args:
            session_id: whose they are.
            commands: the commands.
            applied: called once they are written, even if nobody waits any more, before anything that was handed in
                later; with the number of the newest record.
            timeout: seconds from now that are waited at most.

        Raises:
            Unavailable: the session is not this server's. What waits raises the same, and where they were not written
                in time; where it cannot be told whether they will be, the message says so.
        """
        lane = self._lanes.get(session_id)
        if lane is None:
            raise self.moved(session_id)
        loop = asyncio.get_running_loop()
        write = _Write(commands, _size(commands), applied, loop.create_future(), span=_span(session_id))
        lane.waiting[write] = write
        self._held += write.size
        self._wake()
        return partial(self._written, lane, write, None if timeout is None else loop.time() + timeout)

    async def write(
        self,
        session_id: str,
        commands: Sequence[Command],
        applied: Callable[[int], None] = lambda _: None,
        *,
        timeout: float | None = WRITE_SECONDS,
    ) -> None:
        """Write records, and wait until they are. Without commands: until everything handed in before is.

        Arguments and errors as of :meth:`hand_in`.
        """
        await self.hand_in(session_id, commands, applied, timeout=timeout)()

    async def _written(self, lane: _Lane, write: _Write, until: float | None) -> None:
        assert write.written is not None  # noqa: S101
        try:
            async with asyncio.timeout_at(until):
                await asyncio.shield(write.written)
        except TimeoutError:
            if lane.waiting.pop(write, None) is not None:
                self._settle(write, None)
                raise away(", so this was not stored; try again shortly") from None
            raise away("; this may have been stored or not: look before you repeat it", UNSURE) from None
        finally:
            if not write.written.done():
                lane.unsure.add(write.written)
                write.written.add_done_callback(lane.unsure.discard)

    @asynccontextmanager
    async def changing(self, session_id: str, lock: asyncio.Lock, timeout: float | None) -> AsyncIterator[None]:
        """Have what ``lock`` guards to change it, once it is known of every write that nobody waits for any more
        whether it is written.

        Raises:
            Unavailable: it is not known, or whoever has the lock waits for the store, for ``timeout`` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                await lock.acquire()
        except TimeoutError:
            raise Unavailable(
                f"session '{session_id}' is busy and was not free in time; try again shortly",
                code="session_busy",
                retry_after=2,
            ) from None
        try:
            lane = self._lanes.get(session_id)
            if lane is not None and lane.unsure:
                _, unsure = await asyncio.wait(tuple(lane.unsure), timeout=timeout)
                if unsure:
                    raise away(", and what was sent to it last may be stored or not; try again")
            yield
        finally:
            lock.release()

    @staticmethod
    def moved(session_id: str) -> Unavailable:
        """The refusal for a session that is not this server's any more."""
        return Unavailable(
            f"session '{session_id}' is no longer this server's; try again", code="session_moved", retry_after=1
        )

    async def confirmed(self, session_id: str) -> None:
        """Wait until what was sent of a session is known to be written, and is applied.

        That takes what is left of a round trip. Past :data:`WRITE_SECONDS` it is waited for no longer.
        """
        lane = self._lanes.get(session_id)
        if lane is None or lane.still.is_set():
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(WRITE_SECONDS):
                await lane.still.wait()

    async def flush(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds until everything is written; whether it was."""
        try:
            async with asyncio.timeout(timeout):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    # Sending

    def _wake(self) -> None:
        self._empty.clear()
        self._ready.set()

    async def _run(self) -> None:
        while True:
            await self._ready.wait()
            self._ready.clear()
            sending = {session_id: lane for session_id, lane in self._lanes.items() if lane.load()}
            try:
                results = await self._send(sending)
            except (RedisError, OSError, TimeoutError) as error:
                self._fail(error)
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            failure = None
            for (session_id, lane), result in zip(sending.items(), results, strict=True):
                if self._lanes.get(session_id) is not lane:
                    continue
                if isinstance(result, Exception):
                    failure = result
                elif result == b"OK":
                    self._confirm(lane)
                else:
                    with context.about(session_id):
                        log.warning("session %s is another server's by now", session_id)
                    self.close(session_id)
                    self._lost(session_id)
            if failure is not None:
                self._fail(failure)
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            if self.failing:
                log.info("Redis is back, what waited for it is written")
            self.failing = False
            if any(lane.waiting for lane in self._lanes.values()):
                self._ready.set()
            self._tell_if_empty()

    async def _send(self, lanes: dict[str, _Lane]) -> list[Any]:
        """One script call per session: their results, or what they failed with."""
        if not lanes:
            return []
        async with in_time():
            results = await self._call(lanes, "EVALSHA", _SHA)
            if any(isinstance(result, NoScriptError) for result in results):
                # Where it is known by now, nothing is applied twice.
                results = await self._call(lanes, "EVAL", _SCRIPT)
        return results

    async def _call(self, lanes: dict[str, _Lane], command: str, script: str) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for session_id, lane in lanes.items():
                pipe.execute_command(command, script, 1, keys.guard(session_id), *lane.arguments)
            return await execute(pipe)

    def _confirm(self, lane: _Lane) -> None:
        written, lane.sending, lane.arguments = lane.sending, [], []
        for write in written:
            if write.applied is not None:
                try:
                    write.context.run(write.applied, write.number)
                except Exception as error:
                    write.context.run(log.exception, "a write that is stored could not be applied")
                    self._settle(write, error)
                    continue
            self._settle(write, None)
        lane.still.set()

    def _settle(self, write: _Write, error: Exception | None) -> None:
        write.span.end(error)
        if write.written is None:
            return
        self._held -= write.size
        if write.written.done():
            return
        if error is None:
            write.written.set_result(None)
        else:
            write.written.set_exception(error)
            # Whoever waited may have left.
            write.written.exception()

    def _fail(self, error: Exception) -> None:
        if not self.failing:
            log.error("Redis is away, nothing is stored until it is back: %s", error)
        self.failing = True
        self._ready.set()

    def _tell_if_empty(self) -> None:
        if not any(lane.waiting or lane.sending for lane in self._lanes.values()):
            self._empty.set()


def _span(session_id: str) -> tracing.Span:
    attributes = {"db.system.name": "redis", "db.operation.name": "EVALSHA", "gen_ai.conversation.id": session_id}
    return tracing.child("redis commit", attributes, kind="client")


def _size(commands: Sequence[Command]) -> int:
    return sum(len(part) if isinstance(part, str | bytes) else 8 for command in commands for part in command)


def away(consequence: str, code: str = "store_unavailable") -> Unavailable:
    """The refusal for what a store that does not answer makes impossible."""
    return Unavailable(f"the store (Redis) does not answer{consequence}", code=code, retry_after=2)
