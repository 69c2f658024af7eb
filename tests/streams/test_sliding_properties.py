"""Any order of pushing, talking, freezing and moving on: a stream shows the end of its history, exactly."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from streams import chat
from streams.errors import Conflict, ContextLengthExceeded
from streams.manager import Manager
from streams.messages import Message
from streams.pacer import SlicePolicy
from streams.session import Session
from streams.timeline import Timeline
from streams.window import Window
from tests.engine.fast import FastEngine
from tests.streams.chatting import conversation, say, user
from tests.streams.kit import EngineMachine, Heard, held_tokens, managing, settled, until

OPEN = "<|im_start|>user\n"
REPLIED = f"<|im_end|>\n{OPEN}"


class Covered(Heard):
    """How many entries were resident when the last turn was settled."""

    covered = 0

    def turned(self, session: Session) -> None:
        super().turned(session)
        self.covered = session.covered


class SlidingMachine(EngineMachine):
    """``history`` is everything that ever was in the stream: ``data`` lines, and texts of turns."""

    @initialize(
        tokens=st.integers(400, 900),
        roomy=st.booleans(),
        block=st.sampled_from([16, 64]),
        slice=st.sampled_from([32, 1024]),
    )
    def start(self, tokens: int, roomy: bool, block: int, slice: int) -> None:
        self.runner = asyncio.Runner()
        # With little room, a window has to move in place.
        self.engine = FastEngine(context=4096, block_size=block, kv_capacity=16384 if roomy else 2 * tokens + 800)
        self.heard, self.roomy = Covered(), roomy
        self.stack = contextlib.AsyncExitStack()
        policy = SlicePolicy(tokens_min=8, tokens_first=slice, tokens_max=slice)
        self.manager: Manager = self.runner.run(self.stack.enter_async_context(managing(self.engine, slices=policy)))
        self.stack.enter_context(pytest.MonkeyPatch.context()).setattr(chat, "_QUIET_SECONDS", 0.0)
        self.manager.listen(self.heard)

        async def create() -> None:
            self.session = await self.manager.create("s", window=Window(tokens))

        self.runner.run(create())
        self.history: list[tuple[str, str]] = []
        self.frozen: list[int] = []
        self.said: list[Message] = []
        self.serial = 0
        self.versions = [0]
        self.turned = False

    def teardown(self) -> None:
        if not hasattr(self, "runner"):
            return
        self.engine.ingest_gate.set()
        self.runner.run(self.manager.delete("s"))
        assert (self.manager.budget.granted, self.engine.holds) == (0, set())
        self.runner.run(self.stack.aclose())
        self.runner.close()

    @rule(sizes=st.lists(st.integers(8, 150), min_size=1, max_size=6))
    def push(self, sizes: list[int]) -> None:
        texts = []
        for size in sizes:
            self.serial += 1
            texts.append(f"{self.serial:06d}".ljust(size, "."))
        try:
            self.runner.run(self.manager.push(self.session, texts))
        except ContextLengthExceeded:
            assert not self.roomy or max(sizes) + 1 > (self.session.window.largest(self.session.frozen_end) or 0)
            self.serial -= len(texts)
        else:
            self.history += [("data", text) for text in texts]

    @rule()
    def push_too_much_at_once(self) -> None:
        with contextlib.suppress(ContextLengthExceeded):
            self.runner.run(self.manager.push(self.session, ["x" * ((self.session.window.tokens or 0) // 2)]))
            raise AssertionError("no such entry would ever have room")

    @rule(fresh=st.sampled_from([False, False, True]), size=st.integers(1, 60))
    def talk(self, fresh: bool, size: int) -> None:
        """A turn, over what is resident by then; now and then of another conversation."""

        async def turn() -> None:
            said = [] if fresh else self.said
            self.serial += 1
            asked = user(f"q{self.serial}".ljust(size, "?"))
            self.engine.script.append(f"a{self.serial}")
            reply = await say(self.manager, self.session, conversation(*said, asked))
            self.said = [*said, asked, reply.message]
            if fresh:
                self.history = [part for part in self.history if part[0] == "data"]
            turn = f"{asked.content}<|im_end|>\n<|im_start|>assistant\na{self.serial}{REPLIED}"
            # What was not resident yet follows the turn.
            data = [place for place, part in enumerate(self.history) if part[0] == "data"]
            place = data[self.heard.covered] if self.heard.covered < len(data) else len(self.history)
            self.history.insert(place, ("turn", turn))

        self.engine.ingest_gate.set()
        before = self.session.evicted
        try:
            self.runner.run(turn())
        except ContextLengthExceeded:
            assert not self.roomy
            self.engine.script.clear()
        self.turned = True
        assert self.session.evicted >= before

    @rule()
    def freeze(self) -> None:
        async def freeze() -> None:
            await self.manager.freeze(self.session)

        self.engine.ingest_gate.set()
        entries = [text for kind, text in self.history if kind == "data"]
        try:
            self.runner.run(freeze())
        except (Conflict, ContextLengthExceeded):
            return
        free = [number for number in range(len(entries)) if number not in self.frozen]
        self.frozen += free[self.session.evicted :]

    @rule()
    def come_to_rest(self) -> None:
        async def rest() -> None:
            session = self.session
            await settled(session)
            await until(
                lambda: (
                    not self.manager.moving(session)
                    and session.held.covers(session.timeline.tokens)
                    and len(session.timeline) <= (session.window.tokens or 0)
                )
            )

        self.engine.ingest_gate.set()
        self.runner.run(rest())
        self.turned = False
        assert self.session.pending == 0
        if self.session.version:
            assert held_tokens(self.session) == self.session.timeline.tokens
            self.shows_the_end_of(self.session.timeline, whole=True)

    @invariant()
    def the_window_holds(self) -> None:
        if not hasattr(self, "session"):
            return
        session = self.session
        assert session.failure is None
        assert self.turned or len(session.timeline) <= (session.window.limit or 0)
        assert session.settled <= session.data_end
        assert self.manager.budget.limit >= self.manager.budget.granted >= session.kv_tokens
        assert session.version >= self.versions[-1]
        self.versions.append(session.version)
        self.shows_the_end_of(session.timeline, whole=False)
        assert list(session.snapshot().tokens) == session.timeline.tokens[: session.settled] or not session.settled

    def shows_the_end_of(self, timeline: Timeline, whole: bool) -> None:
        """Frozen entries, and then the history from some point on, as far as it was taken."""
        if not timeline.tokens:
            return
        session = self.session
        text = self.engine.tokenizer.decode(timeline.tokens[len(timeline.head) :])
        entries = [text for kind, text in self.history if kind == "data"]
        taken = len(timeline.frozen) + len(timeline.data()) + session.evicted
        assert len(timeline.frozen) == len(self.frozen)
        assert taken == len(entries) if whole else taken <= len(entries)
        kept = "".join(f"{entries[number]}\n" for number in self.frozen)
        # The oldest that were not frozen have left, and the turns among them.
        free = [number for number in range(taken) if number not in self.frozen]
        seen, number = set(free[session.evicted :]), -1
        rest: list[tuple[str, str]] = []
        for part in self.history:
            number += part[0] == "data"
            if part[0] == "turn" or number in seen:
                rest.append(part)
        gone = len(timeline.forgotten) // 2
        turns = [part for part in rest if part[0] == "turn"]
        for part in turns[:gone]:
            rest.remove(part)
        assert text == kept + "".join(f"{said}\n" if kind == "data" else said for kind, said in rest)
        window = session.statistics("window")["count"], session.statistics("stream")["count"]
        assert window[1] == len(entries) - session.pending == session.entries + session.evicted
        assert window[0] + session.evicted + len(self.frozen) == window[1]


SlidingMachine.TestCase.settings = settings(deadline=None, max_examples=80, stateful_step_count=30)
TestSliding = SlidingMachine.TestCase


async def test_every_token_is_read_about_twice() -> None:
    engine = FastEngine(context=4096, block_size=16, kv_capacity=16384)
    async with managing(engine) as manager:
        session = await manager.create("s", window=Window(1024))
        pushed = 0
        for number in range(400):
            text = f"{number:04d} {'x' * (number % 37)}"
            pushed += len(text) + 1
            await manager.push(session, [text])
            if session.queue.tokens > 200:
                await settled(session)
        await settled(session)
        computed = sum(call.tokens for call in engine.calls if call.kind == "extend")
        moves = len([call for call in engine.calls if call.kind == "release"])
        assert moves > 10
        assert pushed <= computed <= 2.2 * pushed
