"""Questions over a stream: ordinary requests over its resident prefix, which leave nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager, nullcontext
from dataclasses import dataclass, replace

from streams.engine.base import Engine, Piece, Priority, Sampling
from streams.engine.chat_template import PLAIN_END
from streams.errors import ContextLengthExceeded, EngineUnavailable, InvalidInput, Overloaded, Unavailable
from streams.messages import Conversation, Shape
from streams.pacer import Pacer
from streams.reply import Reply
from streams.residency import common_length
from streams.session import Session, Snapshot
from streams.spans import Generation
from streams.template import Template

_TEXT = Shape(choice="none")
# How long a question waits for its stream.
_RESIDENT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question rendered over a snapshot.

    Attributes:
        tokens: the whole prompt, vocabulary ids.
        version: data version of the snapshot under it; None where there is none.
        room: tokens that the answer may have at most.
        rank: that has the stream under it; None where there is none.
        session: the stream it is asked over; None where there is none.
        shared: tokens whose KV has to be the stream's for it to have room.
    """

    tokens: tuple[int, ...]
    version: int | None
    room: int
    rank: int | None
    session: Session | None = None
    shared: int = 0


class Questions:
    """Renders questions, admits them and runs them.

    Args:
        engine: answers.
        template: renders.
        pacers: one per rank, which make ingest give way.
        limit: foreground questions in flight at most.
        limit_per_session: the same on one session.
        reserve: tokens of KV cache that streams leave free for questions.
        rested: called with its rank when a question over a stream has ended.
    """

    def __init__(
        self,
        engine: Engine,
        template: Template,
        pacers: Sequence[Pacer],
        limit: int,
        limit_per_session: int,
        reserve: int,
        *,
        rested: Callable[[int], None],
    ) -> None:
        self._rested = rested
        self._engine = engine
        self._template = template
        self._pacers = pacers
        self._limit = limit
        self._limit_per_session = limit_per_session
        self._reserve = reserve
        self._ends = (PLAIN_END,) if engine.facts.chat_template == "plain" else ()
        self.running = 0
        # Requests that run, by rank.
        self._busy = [0] * engine.facts.ranks

    def encode(self, text: str) -> tuple[int, ...]:
        """A question's tokens; untrusted text."""
        return tuple(self._engine.tokenizer.encode(text))

    def check_alive(self) -> None:
        """Refuse at once what a dead engine could only fail at.

        Raises:
            EngineUnavailable: the engine has died.
        """
        check_alive(self._engine)

    async def ready(self) -> None:
        """Wait until the engine can answer."""
        await self._engine.ready()

    def asked(self, options: Mapping[str, object]) -> Conversation:
        """The tools and template options of a question: thinking is off unless ``options`` turn it on."""
        return Conversation((), options={**self._template.question_options, **options})

    def check_schema(self, schema: Mapping[str, object], param: str) -> None:
        """Refuse a schema that an answer cannot be held to.

        Raises:
            InvalidInput: it cannot be enforced; ``param`` is what it is called.
        """
        try:
            self._engine.dialect.reader(self.asked({}), Shape(choice="none", schema=schema), ())
        except InvalidInput as refused:
            raise InvalidInput(refused.message, param=param) from refused

    @property
    def waiting(self) -> int:
        """Foreground questions without a first token yet."""
        return sum(pacer.waiting for pacer in self._pacers)

    @property
    def eos_id(self) -> int:
        """The token that ends an answer."""
        return self._engine.tokenizer.eos_id

    def plain(self, session: Session, options: Mapping[str, object]) -> bool:
        """Whether the model would see the same as without these template options."""
        frame = self._template.question_frame
        return not options or frame(session.system, options) == frame(session.system)

    async def prompt(
        self,
        session: Session,
        question: Sequence[int],
        *,
        answer: Sequence[int] = (),
        options: Mapping[str, object] | None = None,
        snapshot: Snapshot | None = None,
    ) -> Prompt:
        """Render a question over the session's settled state.

        A stream that is not resident is asked all the same, as long as its whole prompt has room beside the streams. If
        it has not, the question waits until the stream is resident.

        Args:
            session: the stream.
            question: its tokens.
            answer: tokens the answer shall begin with.
            options: template options; they may change what stands before the data and after the question.
            snapshot: ask over this state instead of the present one.

        Raises:
            ContextLengthExceeded: there is no room for the prompt and one token of answer.
            InvalidInput: the template refuses the options.
            Unavailable: it has room only over a resident stream, and that was not resident in time.
        """
        snapshot = snapshot or session.snapshot()
        data = snapshot.tokens
        usual = self._template.question_frame(session.system)
        frame = self._template.question_frame(session.system, options)
        if frame.head != usual.head and data[: len(usual.head)] == usual.head:
            data = (*frame.head, *data[len(usual.head) :])
        tokens = (*data, *question, *frame.tail, *answer)
        facts = self._engine.facts
        if len(tokens) >= facts.context:
            raise ContextLengthExceeded(
                f"the prompt has {len(tokens)} tokens ({len(data)} of them the stream) and the context is "
                f"{facts.context}; shorten the question, or start a new session",
                param="prompt",
            )
        shared = session.held.shared(data)
        room = self._room(len(tokens), shared)
        if room < 1 and self._room(len(tokens), common := common_length(session.timeline.tokens, data)) >= 1:
            shared = await self._resident(session, data, common)
            room = self._room(len(tokens), shared)
        if room < 1:
            own = len(tokens) - shared
            raise ContextLengthExceeded(
                f"the question needs {own} tokens of KV cache of its own and {self._reserve} are kept for questions; "
                "shorten it, or start the server with a larger --kv-cache-gb",
                param="prompt",
            )
        # What it needs of the stream, and no more, so that it may be let go.
        needed = shared if self._room(len(tokens), 0) < 1 else 0
        return Prompt(tokens, snapshot.version, room, session.rank, session, needed)

    def _room(self, prompt: int, shared: int) -> int:
        """Tokens that an answer may have, where a stream holds the first ``shared`` tokens of the prompt."""
        facts = self._engine.facts
        own = prompt - shared // facts.block_size * facts.block_size
        return min(facts.context - prompt, self._reserve - own - facts.block_size)

    async def _resident(self, session: Session, data: Sequence[int], tokens: int) -> int:
        """Wait until ``tokens`` tokens of the data are resident; returns how many are."""
        session.touch()
        session.awaited += 1
        try:
            async with asyncio.timeout(_RESIDENT_SECONDS):
                while (shared := session.held.shared(data)) < tokens:
                    session.require_live()
                    session.wake()
                    await session.progress()
                return shared
        except TimeoutError:
            raise not_resident(session) from None
        finally:
            session.awaited -= 1

    @contextmanager
    def foreground(self, session: Session | None) -> Iterator[None]:
        """A place for one foreground request, on a session or on none, for as long as it runs.

        Raises:
            Overloaded: too many run already, on this session or altogether.
            EngineUnavailable: the engine has died.
            NotFound: the session was deleted meanwhile.
        """
        check_alive(self._engine)
        if session is not None:
            session.require_live()
        here = session.running if session is not None else 0
        if here >= self._limit_per_session or self.running >= self._limit:
            raise Overloaded(
                f"{here} requests run on this session and {self.running} on the server "
                f"(limits: {self._limit_per_session} and {self._limit}); retry shortly",
                retry_after=1,
            )
        self.running += 1
        try:
            with session.foreground() if session is not None else nullcontext():
                yield
        finally:
            self.running -= 1
            if session is not None and session.residency != "resident":
                session.wake()

    def reply(
        self,
        prompt: Prompt,
        sampling: Sampling,
        *,
        conversation: Conversation | None = None,
        shape: Shape = _TEXT,
        priority: Priority = Priority.FOREGROUND,
        held_tokens: int | None = None,
        grow: Callable[[int], bool] = lambda _: True,
        settle: Callable[[Reply], Awaitable[int | None]] | None = None,
    ) -> Reply:
        """An answer, to be iterated. In the foreground, ingest pauses until its first token is out.

        Args:
            prompt: rendered. An answer longer than it has room for ends with ``length``.
            sampling: how to generate.
            conversation: tools and template options of the prompt; None for those of a question.
            shape: what the answer may look like.
            priority: who it waits for.
            held_tokens: tokens of the prompt that a session holds; None for all that turn out to be cached.
            grow, settle: see :class:`~streams.reply.Reply`; the version is the prompt's unless ``settle`` says another.

        Raises:
            InvalidInput: a schema cannot be enforced.
        """
        dialect = self._engine.dialect
        reader = dialect.reader(conversation or self.asked({}), shape, prompt.tokens)
        sampling = replace(
            sampling,
            max_tokens=min(sampling.max_tokens, prompt.room),
            constraint=reader.constraint,
            keep_markup=reader.keep_markup,
            stop=(*sampling.stop, *self._ends),
        )

        async def unsettled(_: Reply) -> int | None:
            return prompt.version

        return Reply(
            self._over(prompt, self._run(prompt, sampling, priority)),
            reader,
            prompt_tokens=len(prompt.tokens),
            held_tokens=len(prompt.tokens) if held_tokens is None else held_tokens,
            top_logprobs=sampling.top_logprobs,
            reasons=dialect.reasons,
            capped=sampling.max_tokens == prompt.room,
            grow=grow,
            settle=settle or unsettled,
        )

    async def _over(self, prompt: Prompt, answer: AsyncGenerator[Piece, None]) -> AsyncGenerator[Piece, None]:
        """Keep the stream that a question needs, or have one that it did without read behind it."""
        session = prompt.session
        async with aclosing(answer):
            if session is None:
                async for piece in answer:
                    yield piece
                return
            if session.held.shared(prompt.tokens) < prompt.shared:
                raise not_resident(session)
            session.asking += 1
            try:
                async for piece in answer:
                    yield piece
                if not session.held.content:
                    # It is in the prefix cache now.
                    session.computed = common_length(session.timeline.tokens, prompt.tokens)
            finally:
                session.asking -= 1
                self._rested(session.rank)

    async def _run(self, prompt: Prompt, sampling: Sampling, priority: Priority) -> AsyncGenerator[Piece, None]:
        rank = self._busy.index(min(self._busy)) if prompt.rank is None else prompt.rank
        self._busy[rank] += 1
        try:
            with (
                self._pacers[rank].question() if priority == Priority.FOREGROUND else nullcontext() as question,
                self._span(prompt, sampling) as span,
            ):
                async with aclosing(self._engine.generate(prompt.tokens, sampling, priority, rank)) as pieces:
                    async for piece in pieces:
                        if question is not None:
                            question.first_token()
                        span.piece(piece)
                        yield replace(piece, stop=None) if piece.stop in self._ends else piece
        finally:
            self._busy[rank] -= 1

    def _span(self, prompt: Prompt, sampling: Sampling) -> Generation:
        session = "" if prompt.session is None else prompt.session.id
        return Generation(self._engine.facts.name, session, len(prompt.tokens), sampling)


def not_resident(session: Session) -> Unavailable:
    """The refusal where a stream had to make room for others, and the question has none without it."""
    return Unavailable(
        f"session '{session.id}' had to make room for other streams and is not resident again yet; try again, or start "
        "the server with a larger --kv-cache-gb",
        code="not_resident",
        retry_after=2,
    )


def check_alive(engine: Engine) -> None:
    """Refuse at once what a dead engine could only fail at."""
    if engine.dead:
        raise EngineUnavailable.restarting()
