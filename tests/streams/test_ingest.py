"""The ingest queue against a plain list."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from streams.ingest import Entry, IngestQueue


class QueueMachine(RuleBasedStateMachine):
    """Entries are numbered from 1 by their only token, so order and survivors can be told apart."""

    @initialize(max_entries=st.integers(1, 6), max_bytes=st.integers(4, 20))
    def start(self, max_entries: int, max_bytes: int) -> None:
        self.queue = IngestQueue(max_entries, max_bytes)
        self.model: list[Entry] = []
        self.pushed = self.taken = 0

    @rule(sizes=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=9))
    def offer(self, sizes: list[tuple[int, int]]) -> None:
        before = self.pushed - self.taken - len(self.model)
        entries = [
            Entry((self.pushed + number, *[0] * padding), size) for number, (size, padding) in enumerate(sizes, 1)
        ]
        self.pushed += len(entries)
        self.model += entries
        while len(self.model) > self.queue.max_entries or sum(e.size for e in self.model) > self.queue.max_bytes:
            del self.model[0]
        dropped = self.queue.offer(entries)
        assert dropped == self.pushed - self.taken - len(self.model) - before

    @rule(room=st.none() | st.integers(0, 12))
    def take(self, room: int | None) -> None:
        batch = self.queue.take(room)
        count, left = 0, float("inf") if room is None else room
        while count < len(self.model) and len(self.model[count].tokens) <= left:
            left -= len(self.model[count].tokens)
            count += 1
        if not count:
            assert batch is None
            return
        assert batch is not None
        assert list(batch.entries) == self.model[:count]
        assert len(batch) == sum(len(entry.tokens) for entry in self.model[:count])
        self.taken += count
        del self.model[:count]
        assert batch.last == self.pushed - len(self.model)

    @invariant()
    def counts_are_exact(self) -> None:
        assert len(self.queue) == len(self.model)
        assert self.queue.next_tokens == (len(self.model[0].tokens) if self.model else 0)
        assert self.queue.total_pushed == self.pushed
        assert self.queue.total_pushed == self.queue.total_dropped + self.taken + len(self.queue)
        assert self.queue.size == sum(entry.size for entry in self.model)
        assert self.queue.tokens == sum(len(entry.tokens) for entry in self.model)

    @invariant()
    def bounds_hold(self) -> None:
        assert len(self.queue) <= self.queue.max_entries
        assert self.queue.size <= self.queue.max_bytes


TestQueue = QueueMachine.TestCase


def test_the_oldest_entries_make_room_for_the_newest() -> None:
    queue = IngestQueue(max_entries=2, max_bytes=100)
    assert queue.offer([Entry((number,), 1) for number in range(5)]) == 3
    batch = queue.take()
    assert batch is not None
    assert [entry.tokens for entry in batch.entries] == [(3,), (4,)]
    assert batch.last == 5


def test_an_entry_that_fills_the_queue_displaces_everything_else() -> None:
    queue = IngestQueue(max_entries=9, max_bytes=10)
    queue.offer([Entry((1,), 3), Entry((2,), 3)])
    assert queue.offer([Entry((3,), 10)]) == 2
    assert (len(queue), queue.size, queue.total_dropped) == (1, 10, 2)
