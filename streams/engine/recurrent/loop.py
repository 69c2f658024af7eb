"""What is computed next: all that wait go on together, a batch of tokens at a time, the urgent ones first."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from streams.engine.base import Piece, Sampling
from streams.engine.recurrent.constraints import Matcher
from streams.engine.recurrent.model import BATCH_TOKENS, Logits, Model, Work
from streams.engine.recurrent.sampling import Chooser, Text
from streams.engine.recurrent.states import Digest, States


class Read(NamedTuple):
    """The tokens of a hold are read; the first ``cached`` of all it has were known already."""

    cached: int


@dataclass(slots=True)
class Reply:
    """What is needed to answer, beside the prompt."""

    chooser: Chooser
    text: Text
    matcher: Matcher | None
    room: int
    kept: bool

    @classmethod
    def to(cls, sampling: Sampling, text: Text, matcher: Matcher | None, *, room: int, kept: bool) -> Reply:
        """A reply that has not begun.

        Args:
            sampling: how to generate.
            text: decodes it.
            matcher: keeps it within its constraint.
            room: tokens that it may have.
            kept: something may go on where it ends.
        """
        return cls(Chooser(sampling), text, matcher, room, kept)


@dataclass(slots=True)
class Job:
    """A sequence that is to be read to its end, and answered if there is a ``reply``.

    Attributes:
        order: who goes first; lower is earlier.
        tokens: all of them, from the first. A reply's are appended.
        hold: whose tokens they are.
        sequence: where its state is; -1 before it has begun.
        read: the tokens that the state has read.
        cached: how many of them were known when it began.
    """

    order: tuple[int, int]
    tokens: array[int]
    hold: int | None = None
    reply: Reply | None = None
    sequence: int = -1
    read: Digest = field(default_factory=Digest)
    cached: int = 0

    @property
    def number(self) -> int:
        return self.order[1]

    @property
    def missing(self) -> int:
        """Tokens that are to be read."""
        return len(self.tokens) - self.read.length


class Hold(NamedTuple):
    """A stream's tokens. They are kept to be read again where more streams are held than there are states."""

    tokens: array[int]
    read: Digest


class Loop:
    """Jobs over the states of a model.

    A job works on a sequence of its own, begun with the longest state that is a prefix of what it reads. What a hold
    has read before stays, for questions over it may still come.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._states = States(model.sequences)
        self._jobs: dict[int, Job] = {}
        self._holds: dict[int, Hold] = {}

    @property
    def busy(self) -> bool:
        return bool(self._jobs)

    def extend(self, number: int, priority: int, hold: int, tokens: array[int]) -> None:
        """Append tokens to what a hold has."""
        known = self._holds.get(hold)
        whole = tokens if known is None else known.tokens + tokens
        self._jobs[number] = Job((priority, number), whole, hold=hold)

    def ask(self, number: int, priority: int, tokens: array[int], reply: Reply) -> None:
        """Answer a prompt."""
        self._jobs[number] = Job((priority, number), tokens[:], reply=reply)

    def cancel(self, number: int) -> None:
        """End a job, if it has not ended."""
        job = self._jobs.pop(number, None)
        if job is not None and job.sequence >= 0:
            self._states.give_back(job.sequence)

    def release(self, hold: int) -> None:
        """End a hold, if it has begun."""
        known = self._holds.pop(hold, None)
        if known is not None:
            self._states.unpin(known.read)

    def step(self) -> list[tuple[int, Piece | Read]]:
        """Compute a batch. Returns what has come of it, by the jobs' numbers."""
        turns = list(self._turns())
        # Neighbouring sequences are computed together.
        turns.sort(key=lambda turn: turn[0].sequence)
        works = [
            Work(
                job.sequence,
                job.read.length,
                job.tokens[job.read.length : job.read.length + count],
                job.reply is not None and count == job.missing,
            )
            for job, count in turns
            if count
        ]
        logits = iter(self._model.decode(works) if works else ())
        events: list[tuple[int, Piece | Read]] = []
        for job, count in turns:
            row = next(logits) if count else None
            job.read = job.read.extended(job.tokens[job.read.length : job.read.length + count])
            if job.missing:
                continue
            if row is not None and job.reply is not None:
                events.append((job.number, self._answer(job, job.reply, row)))
            else:
                events.append((job.number, self._settle(job)))
        return events

    def _turns(self) -> Iterator[tuple[Job, int]]:
        """Whose turn it is, and for how many tokens."""
        room = BATCH_TOKENS
        for job in sorted(self._jobs.values(), key=lambda job: job.order):
            if not room:
                return
            if job.sequence < 0 and not self._begin(job):
                continue
            count = min(room, job.missing)
            if job.reply is not None and count == job.missing and job.read.length > job.cached and count > 1:
                self._leave_state(job)
            room -= count
            yield job, count

    def _begin(self, job: Job) -> bool:
        # The last token of a prompt is always computed, for its logits.
        known = job.tokens if job.reply is None else job.tokens[:-1]
        source, read = self._states.longest(known)
        sequence = self._states.take(besides=source)
        if sequence is None:
            return False
        self._model.clear(sequence)
        if source >= 0:
            self._model.copy(source, sequence)
        job.sequence, job.read, job.cached = sequence, read, read.length
        return True

    def _leave_state(self, job: Job) -> None:
        """Keep a state before the end of a prompt that was read cold: what begins like it may be held next."""
        spare = self._states.take(pinned=False)
        if spare is not None:
            self._model.copy(job.sequence, spare)
            self._states.keep(spare, job.read)

    def _settle(self, job: Job) -> Read:
        assert job.hold is not None  # noqa: S101
        del self._jobs[job.number]
        self._states.keep(job.sequence, job.read)
        self._states.pin(job.read)
        self.release(job.hold)
        self._holds[job.hold] = Hold(job.tokens, job.read)
        return Read(job.cached)

    def _answer(self, job: Job, reply: Reply, logits: Logits) -> Piece:
        if reply.matcher is not None:
            reply.matcher.restrict(logits)
        token, logprobs = reply.chooser.choose(logits)
        over = reply.matcher is not None and reply.matcher.accept(token)
        text, finish = reply.text.add(token, room=reply.room, over=over)
        if finish is None:
            job.tokens.append(token)
        else:
            del self._jobs[job.number]
            if reply.kept:
                self._states.keep(job.sequence, job.read)
            else:
                self._states.give_back(job.sequence)
        return Piece(text, (token,), logprobs, job.cached, finish, reply.text.stop)
