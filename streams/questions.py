"""Questions over a stream: ordinary requests over its resident prefix, which leave nothing behind."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager, nullcontext
from dataclasses import dataclass, replace

from streams.engine.base import Engine, Piece, Priority, Sampling
from streams.errors import ContextLengthExceeded, EngineUnavailable, InvalidInput, Overloaded
from streams.messages import Conversation, Shape
from streams.pacer import Pacer
from streams.reply import Reply
from streams.session import Session, Snapshot
from streams.template import Template

_TEXT = Shape(choice="none")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question rendered over a snapshot.

    Attributes:
        tokens: the whole prompt, vocabulary ids.
        version: data version of the snapshot under it; None where there is none.
        room: tokens that the answer may have at most.
        rank: that has the stream under it; None where there is none.
    """

    tokens: tuple[int, ...]
    version: int | None
    room: int
    rank: int | None


class Questions:
    """Renders questions, admits them and runs them.

    Args:
        engine: answers.
        template: renders.
        pacers: one per rank, which make ingest give way.
        limit: foreground questions in flight at most.
        limit_per_session: the same on one session.
        reserve: tokens of KV cache that streams leave free for questions.
    """

    def __init__(
        self,
        engine: Engine,
        template: Template,
        pacers: Sequence[Pacer],
        limit: int,
        limit_per_session: int,
        reserve: int,
    ) -> None:
        self._engine = engine
        self._template = template
        self._pacers = pacers
        self._limit = limit
        self._limit_per_session = limit_per_session
        self._reserve = reserve
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

    def prompt(
        self,
        session: Session,
        question: Sequence[int],
        *,
        answer: Sequence[int] = (),
        options: Mapping[str, object] | None = None,
        snapshot: Snapshot | None = None,
    ) -> Prompt:
        """Render a question over the session's settled state.

        Args:
            session: the stream.
            question: its tokens.
            answer: tokens the answer shall begin with.
            options: template options; they may change what stands before the data and after the question.
            snapshot: ask over this state instead of the present one.

        Raises:
            ContextLengthExceeded: there is no room for the prompt and one token of answer.
            InvalidInput: the template refuses the options.
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
        shared = session.held.shared(data) // facts.block_size * facts.block_size
        own = len(tokens) - shared
        room = min(facts.context - len(tokens), self._reserve - own - facts.block_size)
        if room < 1:
            raise ContextLengthExceeded(
                f"the question needs {own} tokens of KV cache of its own and {self._reserve} are kept for questions; "
                "shorten it, or start the server with a larger --kv-cache-gb",
                param="prompt",
            )
        return Prompt(tokens, snapshot.version, room, session.rank)

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
        settle: Callable[[Reply], int | None] | None = None,
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
        )
        return Reply(
            self._run(prompt, sampling, priority),
            reader,
            prompt_tokens=len(prompt.tokens),
            held_tokens=len(prompt.tokens) if held_tokens is None else held_tokens,
            top_logprobs=sampling.top_logprobs,
            reasons=dialect.reasons,
            capped=sampling.max_tokens == prompt.room,
            grow=grow,
            settle=settle or (lambda _: prompt.version),
        )

    async def _run(self, prompt: Prompt, sampling: Sampling, priority: Priority) -> AsyncGenerator[Piece, None]:
        rank = self._busy.index(min(self._busy)) if prompt.rank is None else prompt.rank
        self._busy[rank] += 1
        try:
            with self._pacers[rank].question() if priority == Priority.FOREGROUND else nullcontext() as question:
                async with aclosing(self._engine.generate(prompt.tokens, sampling, priority, rank)) as pieces:
                    async for piece in pieces:
                        if question is not None:
                            question.first_token()
                        yield piece
        finally:
            self._busy[rank] -= 1


def check_alive(engine: Engine) -> None:
    """Refuse at once what a dead engine could only fail at."""
    if engine.dead:
        raise EngineUnavailable("the engine has died; the server must be restarted", retry_after=30)
