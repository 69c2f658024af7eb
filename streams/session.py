"""A session: one stream, its tokens and the markers that describe it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from streams import tracing
from streams.backlog import Backlog
from streams.entries import EntryType
from streams.errors import Conflict, InvalidInput, NotFound, Unavailable
from streams.ingest import Batch, Entry, IngestQueue
from streams.records import Settled, Turned
from streams.residency import Resident
from streams.tally import Over, Tally
from streams.template import Frame
from streams.timeline import Data, Eviction, Kept, Timeline
from streams.window import NO_WINDOW, Window

# An acknowledgement takes up to three turns of the event loop from the store's confirmation to its socket. Work for the
# model that begins before holds it up for milliseconds.
_TOLD_TURNS = 4

Residency = Literal["resident", "warm", "cold"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A settled state of a stream: what a question is asked over.

    Attributes:
        version: the data version these tokens are.
        tokens: rendered prefix, from the first token of the template to the last token of data.
    """

    version: int
    tokens: tuple[int, ...]


@dataclass(eq=False, slots=True)
class Ahead:
    """What warm turns have read: the prompt of a turn that may come.

    Attributes:
        held: what of it is resident.
        reading: held by the call that reads.
        call: the newest call; an older one ends at its next slice.
    """

    held: Resident
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)
    call: object = None


@dataclass(eq=False, slots=True)
class Session:
    """State of one stream. Only the manager changes it.

    Attributes:
        id: name, unique on the server.
        frame: markup around the data, in tokens.
        backlog: what was accepted and is not resident.
        held: what the engine holds of this stream.
        system: system prompt, None for the template's own default.
        type: of the entries; None for raw text.
        window: what the stream is limited to.
        pre_decode: keep what the model would say next to each version.
        labels: notes of whoever made it; nothing here reads them.
        created, last_used: Unix seconds.
        timeline: every durable token. Grows when a batch is taken, ahead of the KV cache.
        settled: length of the prefix of ``timeline`` that the present version covers.
        computed: length of the prefix of ``timeline`` that the last turn computed; in the prefix cache, if not evicted.
        cause: ``traceparent`` of what has made the present version; empty if that is not traced.
        version: rises by one when a batch is resident, a turn is settled, the window has moved or data was frozen.
        covered: sequence number of the newest entry that is resident (or was dropped before one that is).
        turns: completed durable turns.
        batches, reading_seconds: read so far, and how long that took.
        entries: resident, without those that left through the window.
        tally: statistics of the entries that are resident.
        evicted: entries that left through the window.
        running: foreground requests in flight.
        turning: a turn runs, or waits for the ingest loop to step aside; there is one at most.
        reading: held by whoever changes the timeline: the ingest loop for a batch, a turn until it is settled.
        ahead: what a warm turn has read beyond the timeline.
        asking: questions over its tokens that the engine works on.
        awaited: questions that wait until it is resident.
        let_go: the present engine held it once, and had to make room for another.
        deleted: being deleted; nobody may begin anything on it.
        failure: why the ingest loop ended early, if it did.
    """

    id: str
    frame: Frame
    backlog: Backlog
    held: Resident
    system: str | None = None
    type: EntryType | None = None
    window: Window = NO_WINDOW
    pre_decode: bool = False
    labels: frozenset[str] = frozenset()
    created: float = field(default_factory=time.time)
    last_used: float = 0.0
    timeline: Timeline = field(default_factory=Timeline)
    settled: int = 0
    computed: int = 0
    cause: str = ""
    version: int = 0
    covered: int = 0
    turns: int = 0
    batches: int = 0
    reading_seconds: float = 0.0
    entries: int = 0
    tally: Tally = field(init=False)
    evicted: int = 0
    running: int = 0
    turning: bool = False
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)
    ahead: Ahead | None = None
    asking: int = 0
    awaited: int = 0
    let_go: bool = False
    failure: str | None = None
    deleted: bool = False
    _pins: int = 0
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _progress: asyncio.Event = field(default_factory=asyncio.Event)
    _free: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.last_used = self.last_used or self.created
        self.tally = Tally(self.type, windowed=self.windowed)
        self._free.set()

    @property
    def rank(self) -> int:
        """Where the stream is held: the engine's rank that all its requests name."""
        return self.held.rank

    @property
    def tokens(self) -> int:
        """Length of the stream in tokens."""
        return len(self.timeline)

    @property
    def data_end(self) -> int:
        """End of the durable part, in tokens. Questions leave no tail behind, so it is the whole stream."""
        return len(self.timeline)

    @property
    def kv_tokens(self) -> int:
        """Tokens whose KV is held; behind ``data_end`` while a batch or the last turn is being read."""
        return self.held.shared(self.timeline.tokens)

    @property
    def residency(self) -> Residency:
        """``resident`` while the engine holds it; ``warm`` if it was let go and may be in the prefix cache still;
        ``cold`` if there are only its tokens.
        """
        if self.held.content or not self.settled:
            return "resident"
        return "warm" if self.let_go else "cold"

    @property
    def queue(self) -> IngestQueue:
        """Entries accepted and not yet taken by the ingest loop."""
        return self.backlog.queue

    @property
    def pending(self) -> int:
        """Entries accepted and not yet resident."""
        return self.backlog.entries

    @property
    def committed(self) -> int:
        """Tokens this stream will hold at most while everything accepted is read."""
        waiting = self.backlog.tokens
        return self.growth(waiting) if self.timeline.tokens or waiting else 0

    def growth(self, tokens: int) -> int:
        """Tokens this stream will hold at most while ``tokens`` more are read into it."""
        now = len(self.timeline) or len(self.frame.head)
        limit = self.window.limit
        return now + tokens if limit is None else max(now, min(now + tokens, limit))

    @property
    def windowed(self) -> bool:
        """Whether entries ever leave."""
        return self.window != NO_WINDOW

    @property
    def frozen_end(self) -> int:
        """End of what no window takes away, in tokens."""
        return self.timeline.frozen_end or len(self.frame.head)

    def statistics(self, over: Over) -> dict[str, Any]:
        """Statistics of the entries of the present version: of those in the window, or of the whole stream."""
        return self.tally.report(over)

    @property
    def read(self) -> int:
        """Entries ever read, those that left through the window included: the number of the newest."""
        return self.evicted + self.entries

    def newest(self, count: int) -> tuple[Entry, ...]:
        """The last ``count`` entries of the present version, oldest first; frozen ones are context and left out."""
        batch = self.backlog.batch
        return self.timeline.newest(count, but=0 if batch is None else len(batch.entries))

    @property
    def idle(self) -> bool:
        """Nothing runs on it, nothing waits to be read, nobody watches."""
        return not (self.running or self._pins or (self.pending and self.failure is None))

    def snapshot(self) -> Snapshot:
        """The stream as of its present version; an empty stream is its template head."""
        settled = self.timeline.tokens[: self.settled] if self.settled else self.frame.head
        return Snapshot(self.version, tuple(settled))

    def require_live(self) -> None:
        """Check before anything begins on it. Whoever looked the session up and then waited may find it deleted.

        Raises:
            NotFound: it is being deleted.
        """
        if self.deleted:
            raise gone(self.id)

    def touch(self) -> None:
        """Restart the idle clock."""
        self.last_used = time.time()

    @contextmanager
    def pinned(self) -> Iterator[None]:
        """Keep the session from expiring while somebody watches it."""
        self._pins += 1
        try:
            yield
        finally:
            self._pins -= 1
            self.touch()

    @contextmanager
    def foreground(self) -> Iterator[None]:
        """Count a foreground request for as long as it runs."""
        self.touch()
        self.running += 1
        self._free.clear()
        try:
            yield
        finally:
            self.running -= 1
            self.touch()
            if not self.running:
                self._free.set()

    async def free(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds for foreground requests to end; whether they did."""
        try:
            async with asyncio.timeout(timeout):
                await self._free.wait()
        except TimeoutError:
            return False
        return not self.running

    # The ingest loop's side.

    def begin(self) -> None:
        """Have what precedes all data read before any comes."""
        self.timeline = Timeline.of(self.frame.head)
        self.settled = len(self.timeline)

    def wake(self) -> None:
        """Tell the ingest loop that something was queued."""
        self._wake.set()

    async def work(self, timeout: float | None = None) -> None:
        """Wait until something is queued, for ``timeout`` seconds at most, and whoever queued it was told."""
        try:
            async with asyncio.timeout(timeout):
                await self._wake.wait()
        except TimeoutError:
            return
        for _ in range(_TOLD_TURNS):
            await asyncio.sleep(0)
        self._wake.clear()

    def take(self) -> Batch | None:
        """Take what is queued and has room, and append it to the timeline; the KV follows.

        What was set aside for a turn comes first, and alone.
        """
        room = None if self.window.limit is None else self.window.limit - (len(self.timeline) or len(self.frame.head))
        batch = self.backlog.take(room)
        if batch is not None:
            self._append(batch)
        return batch

    def _append(self, batch: Batch) -> None:
        if not self.timeline.tokens:
            self.timeline = Timeline.of(self.frame.head)
        self.timeline.append(batch.entries)

    def set_aside(self) -> None:
        """Leave the entries of the batch taken last that are not wholly resident for later; the others can settle."""
        if self.backlog.batch is None:
            return
        start = len(self.timeline) - len(self.backlog.batch)
        rest = self.backlog.set_aside(self.held.shared(self.timeline.tokens) - start)
        if rest is not None:
            self.timeline.drop(rest.entries)

    def settle(self, settled: Settled) -> Batch:
        """The batch taken last is resident: it becomes the present version. Returns it."""
        batch = self.backlog.settle()
        self.covered = batch.last
        self.batches += 1
        self.reading_seconds += settled.seconds
        self.entries += len(batch.entries)
        self.tally.add(batch.entries)
        self._renew()
        return batch

    def replay(self, batch: Batch, settled: Settled) -> None:
        """What was read and settled before is so again."""
        self.backlog.begin(batch)
        self._append(batch)
        self.settle(settled)

    def settle_turn(self, turned: Turned) -> None:
        """A turn is over: it and what it has kept are the stream now."""
        head = self.frame.head if turned.head is None else turned.head
        whole = turned.segments == len(self.timeline.segments)
        kept = Kept(turned.segments, turned.messages, () if whole else self.timeline.data(turned.segments))
        timeline = self.timeline.cut(kept, head, turned.opening, user_next=turned.user_next)
        self.timeline = timeline.said(turned.turn, Data(turned.opened))
        self.frame, self.system = Frame(head, turned.tail), turned.system
        self.computed = turned.computed
        self.turns += 1
        self._renew()

    def settle_move(self, eviction: Eviction, held: Resident) -> Resident:
        """The window has moved on, and ``held`` has what it shows. Returns what the stream was held by before."""
        before = self.timeline.data()
        self.timeline = self.timeline.without(eviction)
        gone = before[: len(before) - len(self.timeline.data())]
        self.evicted += len(gone)
        self.entries -= len(gone)
        self.tally.drop(gone)
        self.computed = 0
        held, self.held = self.held, held
        self._renew()
        return held

    def freezable(self) -> bool:
        """Whether there is anything that the window could take away.

        Raises:
            Conflict: there are turns among it.
        """
        return bool(self.timeline.freeze() and self.timeline.data())

    def freeze(self) -> None:
        """No window shall take away what the stream has so far. To be called by whoever holds :attr:`reading`.

        What is frozen is context: it does not count in the statistics of what the window shows any more.
        """
        entries = self.timeline.data()
        self.timeline = self.timeline.freeze()
        self.tally.drop(entries)
        self._renew()

    def _renew(self) -> None:
        self.version += 1
        self.cause = tracing.current()
        self.settled = len(self.timeline)
        self.advance()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Have the stream for a turn. Whoever reads into it meanwhile steps aside at the next slice.

        Raises:
            Conflict: another turn has it.
        """
        if self.turning:
            raise Conflict(
                f"session '{self.id}' is in the middle of a turn; send the next one when that has ended",
                code="session_busy",
            )
        self.turning = True
        try:
            yield
        finally:
            self.turning = False
            if self.backlog.waits:
                self.wake()

    def advance(self) -> None:
        """Wake everyone who waits for residency."""
        self._progress.set()
        self._progress = asyncio.Event()

    async def progress(self) -> None:
        """Wait until something becomes resident."""
        await self._progress.wait()

    async def resident(self, entries: int, timeout: float) -> None:
        """Wait until the first ``entries`` entries ever pushed are resident.

        Args:
            entries: a push acknowledgement's ``total_pushed``.
            timeout: seconds to wait at most.

        Raises:
            InvalidInput: so many were never pushed.
            Unavailable: they were not in time, or never will be.
        """
        if entries > self.queue.total_pushed:
            raise InvalidInput(
                f"after: only {self.queue.total_pushed} entries were pushed to session '{self.id}'", param="after"
            )
        try:
            async with asyncio.timeout(timeout):
                while self.covered < entries and not self.deleted and self.failure is None:
                    await self._progress.wait()
        except TimeoutError:
            raise Unavailable(
                f"entry {entries} was not resident within {timeout:g} s (resident: {self.covered}); try again",
                code="not_resident_in_time",
                param="after",
                retry_after=1,
            ) from None
        if self.covered < entries:
            raise Unavailable(
                self.failure or f"session '{self.id}' was deleted meanwhile",
                code="session_ended",
                param="after",
            )


def gone(session_id: str) -> NotFound:
    """The refusal for a session that does not exist, or not any more."""
    return NotFound(
        f"session '{session_id}' does not exist; it may have been deleted or have expired. Create it first",
        code="session_not_found",
        param="session_id",
    )
