"""Chat: requests on their own, and durable turns of a session.

A turn continues the session's stream. What the request repeats of it stays; what differs is cut off and rendered anew,
with the data in its order. The turn is an ordinary request over the resident prefix, and what it added is read into the
stream's hold afterwards, in a moment of quiet, from the prefix cache.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from streams.budget import full
from streams.engine.base import Engine, Priority, Sampling
from streams.errors import Conflict, ContextLengthExceeded, InvalidInput
from streams.holding import Holding
from streams.journal import WRITE_SECONDS
from streams.log import Log
from streams.messages import Conversation, Message, Shape
from streams.pacer import Pacer
from streams.questions import Prompt, Questions
from streams.records import Turned
from streams.reply import Reply
from streams.residency import Resident, common_length
from streams.room import Room
from streams.session import Ahead, Session
from streams.template import Frame, Template
from streams.timeline import Kept, Timeline, Turn
from streams.waiting import uninterrupted

# Rendering and tokenizing this much text takes longer than the event loop may be held up.
_INLINE_CHARACTERS = 16 * 1024
# A turn is often followed by the next at once; reading it into the hold meanwhile would be in its way.
_QUIET_SECONDS = 0.25
# How long a turn waits for room in the KV cache.
_ROOM_SECONDS = 30.0
# KV cache for a reply is granted in portions of this many tokens.
_GROWTH = 256
# How long a turn waits for the ingest loop, which steps aside between two slices.
_FREE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Warmed:
    """How a warm turn ended.

    Attributes:
        finish_reason: all of it is resident; it was stopped; or all of it was resident before.
        prompt_tokens: length of the prompt.
        cached_tokens: how many of them had KV before.
        prefix_cached_tokens: the part of these that the session did not hold.
        computed_tokens: computed by this call.
        version: the session's data version.
    """

    finish_reason: Literal["warmed", "cancelled", "covered"]
    prompt_tokens: int
    cached_tokens: int
    prefix_cached_tokens: int
    computed_tokens: int
    version: int


@dataclass(frozen=True, slots=True)
class _Plan:
    """A turn, ready to be run over a session.

    Attributes:
        kept, opening, user_next: how the timeline is cut; see :meth:`~streams.timeline.Timeline.cut`.
        timeline: what of the stream stays by that.
        added: tokens that follow it, up to where the reply begins.
        following: opens the next user message after the reply.
        messages: what the request adds.
        frame, system: of the conversation.
    """

    kept: Kept
    opening: tuple[int, ...]
    user_next: bool
    timeline: Timeline
    added: tuple[int, ...]
    following: tuple[int, ...]
    messages: tuple[Message, ...]
    frame: Frame
    system: str | None

    @property
    def prompt(self) -> tuple[int, ...]:
        return (*self.timeline.tokens, *self.added)


class Chat:
    """Chat requests and turns.

    Args:
        engine: answers.
        template: renders.
        questions: admits requests and runs them.
        pacers: one per rank, which share the engine.
        reserve: tokens of KV cache that streams leave free.
        holdings: one per rank, which have room.
        log: where a turn is written first.
        turned: called with a session whenever a turn of it was settled.
    """

    def __init__(
        self,
        engine: Engine,
        template: Template,
        questions: Questions,
        pacers: Sequence[Pacer],
        *,
        reserve: int,
        holdings: Sequence[Holding],
        log: Log,
        turned: Callable[[Session], None],
    ) -> None:
        self._engine = engine
        self._template = template
        self._questions = questions
        self._pacers = pacers
        self._reserve = reserve
        self._holdings = holdings
        self._log = log
        self._turned = turned

    async def count(self, conversation: Conversation) -> int:
        """Tokens of the prompt that a request on its own would have.

        Raises:
            InvalidInput: the template refuses the conversation.
        """
        return len(await self._rendered(conversation))

    @asynccontextmanager
    async def reply(
        self, conversation: Conversation, shape: Shape, sampling: Sampling, session: Session | None = None
    ) -> AsyncIterator[Reply]:
        """Reply to a conversation, as a durable turn of ``session`` if there is one.

        Nothing is generated before the reply is iterated. Whoever leaves before its end leaves nothing behind.

        Raises:
            InvalidInput: the template refuses the conversation, or a schema cannot be enforced.
            ContextLengthExceeded: there is no room for the prompt and a reply.
            Conflict: another turn of the session runs.
            Overloaded: too many requests run.
            Unavailable: the engine has died, or the KV cache is full.
            NotFound: the session was deleted.
        """
        with self._questions.foreground(session):
            if session is None:
                async with self._alone(conversation, shape, sampling) as reply:
                    yield reply
                return
            with session.turn():
                if session.ahead is not None:
                    session.ahead.call = None
                self._holdings[session.rank].forgo(session)
                # The ingest loop steps aside between two slices.
                async with (
                    self._log.changing(session, _FREE_SECONDS),
                    self._turn(conversation, shape, sampling, session) as reply,
                ):
                    yield reply

    @asynccontextmanager
    async def _alone(self, conversation: Conversation, shape: Shape, sampling: Sampling) -> AsyncIterator[Reply]:
        prompt = await self._rendered(conversation)
        facts = self._engine.facts
        room = min(facts.context, self._reserve - facts.block_size) - len(prompt)
        self._check_room(len(prompt), room)
        reply = self._questions.reply(
            Prompt(prompt, None, room, None), sampling, conversation=conversation, shape=shape, held_tokens=0
        )
        async with aclosing(reply):
            yield reply

    @asynccontextmanager
    async def _turn(
        self, conversation: Conversation, shape: Shape, sampling: Sampling, session: Session
    ) -> AsyncIterator[Reply]:
        session.require_live()
        plan = await self._plan(session, conversation)
        prompt = plan.prompt
        Room.check_frozen(session.window, plan.timeline.frozen_end, "messages")
        # What comes after the reply must fit as well, or the stream could not be held any more.
        room = self._engine.facts.context - 1 - len(prompt) - len(plan.following)
        self._check_room(len(prompt), room)
        # What a reply may need is asked for as it comes, as far as a stream that is alone may grow.
        holding = self._holdings[session.rank]
        granted = max(len(prompt), min(len(prompt) + _GROWTH, holding.budget.longest))

        def grow(tokens: int) -> bool:
            nonlocal granted
            needed = len(prompt) + tokens + len(plan.following)
            if needed >= granted:
                if not holding.grow(session.held, granted + _GROWTH):
                    return False
                granted += _GROWTH
            return True

        async def settle(reply: Reply) -> int:
            await self._settle(session, plan, reply)
            return session.version

        held = _held(session, prompt)
        try:
            reply = self._questions.reply(
                Prompt(prompt, session.version, room, session.rank),
                sampling,
                conversation=conversation,
                shape=shape,
                held_tokens=held,
                grow=grow,
                settle=settle,
            )
            async with (
                holding.room(session, lambda: granted, timeout=_ROOM_SECONDS, param="messages"),
                aclosing(reply),
            ):
                yield reply
        finally:
            asyncio.get_running_loop().call_later(_QUIET_SECONDS, session.wake)

    async def _settle(self, session: Session, plan: _Plan, reply: Reply) -> None:
        turned = Turned(
            segments=plan.kept.segments,
            messages=plan.kept.messages,
            head=None if plan.frame.head == session.frame.head else plan.frame.head,
            tail=plan.frame.tail,
            system=plan.system,
            opening=plan.opening,
            user_next=plan.user_next,
            turn=Turn((*plan.messages, reply.message), (*plan.added, *reply.tokens), time.time()),
            opened=self._template.after_reply(reply.tokens, plan.following),
            # The token sampled last was never computed.
            computed=len(plan.prompt) + len(reply.tokens) - 1,
        )

        def settle() -> None:
            session.settle_turn(turned)
            self._turned(session)

        # Until it is known whether it is written, nobody else may change the timeline.
        await uninterrupted(self._log.write(session, turned, settle, timeout=WRITE_SECONDS))

    # Warm turns

    async def warm(self, session: Session, conversation: Conversation) -> Warmed:
        """Make KV for a conversation that a turn is expected to send. Nothing of the stream changes.

        It is read in slices behind everybody else, ends when a turn or another warm turn comes, and what it has read
        stays resident until the stream goes on without it.

        Raises:
            InvalidInput, ContextLengthExceeded, Unavailable, NotFound: as :meth:`reply`.
            Conflict: a turn of the session runs.
        """
        self._questions.check_alive()
        session.require_live()
        if session.turning:
            raise Conflict(
                f"session '{session.id}' is in the middle of a turn; warm the next one when that has ended",
                code="session_busy",
            )
        with session.pinned():
            plan = await self._plan(session, conversation, warm=True)
            goal, facts = plan.prompt, self._engine.facts
            self._check_room(len(goal), facts.context - 1 - len(goal))
            ahead = session.ahead or Ahead(Resident(self._engine, self._pacers, Priority.WARM, rank=session.rank))
            held = _held(session, goal)
            if session.held.covers(goal) or ahead.held.covers(goal):
                return Warmed("covered", len(goal), len(goal), 0, 0, session.version)
            session.ahead = ahead
            call = ahead.call = object()

            def stop() -> bool:
                return ahead.call is not call or session.turning or session.deleted

            async with ahead.reading:
                shared = session.held.shared(goal) // facts.block_size * facts.block_size
                if stop():
                    return Warmed("cancelled", len(goal), held, 0, 0, session.version)
                known = max(shared, _computed(session, goal))
                async with self._holdings[session.rank].spare(session, ahead.held, len(goal) - shared) as room:
                    if not room:
                        raise full()
                    done = await ahead.held.read(goal, computed=known, stop=stop)
                cached = max(held, min(ahead.held.cached, len(goal)))
                computed = max(0, ahead.held.shared(goal) - cached)
            return Warmed(
                "warmed" if done else "cancelled", len(goal), cached, cached - held, computed, session.version
            )

    async def retire(self, session: Session) -> None:
        """Give back what warm turns have read, once the stream has gone on without it."""
        ahead = session.ahead
        if ahead is None or ahead.reading.locked():
            return
        if ahead.held.content and ahead.held.covers(session.timeline.tokens):
            return
        session.ahead = None
        await uninterrupted(self.release(ahead))

    async def release(self, ahead: Ahead) -> None:
        """Give back what a warm turn has read."""
        ahead.call = None
        async with ahead.reading:
            await self._holdings[ahead.held.rank].release(ahead.held)

    # Rendering

    async def _rendered(self, conversation: Conversation) -> tuple[int, ...]:
        return await _aside(conversation, lambda: self._template.render(conversation))

    async def _plan(self, session: Session, conversation: Conversation, *, warm: bool = False) -> _Plan:
        given = conversation.messages
        own = bool(given) and given[0].role == "system"
        said = given[1:] if own else given
        system = given[0].content if own else session.system
        if not said:
            raise InvalidInput("messages: a turn needs a message beside the system's", param="messages")
        before = () if system is None else (Message("system", system),)
        conversation = replace(conversation, messages=(*before, *said))

        def plan() -> _Plan:
            template = self._template
            frame = template.frame(system, conversation.options, conversation.tools)
            timeline = session.timeline
            if frame.head == session.frame.head:
                kept = timeline.kept(said, all_of_them=warm)
            else:
                kept = Kept(0, 0, timeline.data())
            added = said[kept.messages :]
            held = len(before) + kept.messages
            opening: tuple[int, ...] = ()
            replied = timeline.segments[kept.segments - 1] if kept.segments else None
            if kept.moved and isinstance(replied, Turn):
                past = replace(conversation, messages=conversation.messages[: held - 1])
                opening = template.after_reply(replied.tokens, template.opening(past))
            user_next = bool(added) and added[0].role == "user"
            timeline = timeline.cut(kept, frame.head, opening, user_next=user_next)
            begun: tuple[int, ...] = ()
            following: tuple[int, ...] = ()
            if added:
                begun = template.resume(conversation, held, in_user=timeline.in_user, generation=not warm)
                if not timeline.in_user:
                    begun = template.after_reply(timeline.tokens, begun)
                following = () if warm else template.opening(conversation)
            return _Plan(kept, opening, user_next, timeline, begun, following, added, frame, system)

        return await _aside(conversation, plan)

    def _check_room(self, prompt: int, room: int) -> None:
        if room < 1:
            raise ContextLengthExceeded.of_prompt(prompt, prompt + room - 1, "messages")


def _computed(session: Session, goal: Sequence[int]) -> int:
    """How many tokens of ``goal`` the last turn computed: the session's, though its hold may not have them yet."""
    return min(session.computed, common_length(session.timeline.tokens, goal))


def _held(session: Session, goal: Sequence[int]) -> int:
    """How many tokens of ``goal`` have KV that is the session's."""
    ahead = session.ahead.held.shared(goal) if session.ahead is not None else 0
    return max(session.held.shared(goal), ahead, _computed(session, goal))


T = TypeVar("T")


async def _aside(conversation: Conversation, work: Callable[[], T]) -> T:
    """Do it here, or in a thread where that takes long."""
    size = sum(len(message.content) for message in conversation.messages) + 64 * len(conversation.messages)
    return work() if size <= _INLINE_CHARACTERS else await asyncio.to_thread(work)
