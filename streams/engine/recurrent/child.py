"""The process that the model runs in: what it is told, and what it says."""

from __future__ import annotations

import os
import queue
import signal
import threading
from array import array
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from streams.engine.base import Piece, Priority, Sampling
from streams.engine.giving_way import give_way
from streams.engine.recurrent.constraints import Compiler, Matcher
from streams.engine.recurrent.loop import Loop, Read, Reply
from streams.engine.recurrent.model import Model
from streams.engine.recurrent.sampling import Text
from streams.errors import AskaheadError, EngineUnavailable


@dataclass(frozen=True, slots=True)
class Setup:
    """What to load.

    Attributes:
        path: GGUF file.
        memory: bytes for states.
        at_most, at_least: sequences.
        threads: of the CPU.
        nice: how far they give way to those of other programs.
        pieces: the bytes of each token.
        hidden: tokens that are not shown unless asked for.
        ends: tokens that end a reply.
    """

    path: Path
    memory: int
    at_most: int
    at_least: int
    threads: int
    nice: int
    pieces: Sequence[bytes]
    hidden: frozenset[int]
    ends: frozenset[int]


class Loaded(NamedTuple):
    """The model is ready."""

    vocabulary: int
    sequences: int
    state_bytes: int


class Extend(NamedTuple):
    """Append tokens to a hold."""

    number: int
    priority: Priority
    hold: int
    tokens: array[int]


class Ask(NamedTuple):
    """Answer a prompt, in at most ``room`` tokens."""

    number: int
    priority: Priority
    tokens: array[int]
    sampling: Sampling
    room: int


class Cancel(NamedTuple):
    """End what has this number."""

    number: int


class Release(NamedTuple):
    """End a hold."""

    hold: int


class _Compiled(NamedTuple):
    """A question, and what its reply is held to or why it cannot be."""

    ask: Ask
    matcher: Matcher | AskaheadError | None


Order = Extend | Ask | Cancel | Release | _Compiled
Event = Piece | Read | AskaheadError


def main(setup: Setup, connection: Connection) -> None:
    """Load the model, then do as told until the other end is gone. An error of the library ends the process."""
    # A terminal's Ctrl-C is sent to all: the server must be able to drain first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, orders), name="orders", daemon=True).start()
    try:
        model = Model(
            setup.path, memory=setup.memory, at_most=setup.at_most, at_least=setup.at_least, threads=setup.threads
        )
    except AskaheadError as error:
        connection.send(error)
        return
    give_way(setup.nice)
    connection.send(Loaded(model.vocabulary, model.sequences, model.state_bytes))
    _Worker(setup, model, orders, connection).run()


def _listen(connection: Connection, orders: queue.SimpleQueue[Order]) -> None:
    try:
        while True:
            orders.put(connection.recv())
    except (EOFError, OSError):
        # Nobody is there any more: not even a step that is being computed is of use.
        os._exit(0)


class _Worker:
    def __init__(self, setup: Setup, model: Model, orders: queue.SimpleQueue[Order], connection: Connection) -> None:
        self._setup = setup
        self._model = model
        self._orders = orders
        self._connection = connection
        self._loop = Loop(model)
        self._compiler: Compiler | None = None
        # One at a time, beside the steps: a large schema takes seconds.
        self._compiling = ThreadPoolExecutor(1, thread_name_prefix="grammars")
        self._waiting: set[int] = set()

    def run(self) -> None:
        while True:
            events: list[tuple[int, Event]] = []
            while not self._orders.empty() or not self._loop.busy:
                self._obey(self._orders.get(), events)
                if events:
                    break
            events += self._loop.step()
            if events:
                self._connection.send(events)

    def _obey(self, order: Order, events: list[tuple[int, Event]]) -> None:
        match order:
            case Extend():
                self._loop.extend(order.number, order.priority, order.hold, order.tokens)
            case Ask(sampling=Sampling(constraint=None)):
                self._ask(order, None)
            case Ask():
                self._waiting.add(order.number)
                self._compiling.submit(self._compile, order)
            case _Compiled(ask, matcher) if ask.number in self._waiting:
                self._waiting.discard(ask.number)
                if isinstance(matcher, AskaheadError):
                    events.append((ask.number, matcher))
                else:
                    self._ask(ask, matcher)
            case Cancel():
                self._waiting.discard(order.number)
                self._loop.cancel(order.number)
            case Release():
                self._loop.release(order.hold)

    def _ask(self, ask: Ask, matcher: Matcher | None) -> None:
        text = Text(ask.sampling, self._setup.pieces, self._setup.hidden, self._setup.ends)
        # A turn goes on where the one before has ended; nothing follows an answer to a standing question.
        kept = ask.priority is Priority.FOREGROUND
        reply = Reply.to(ask.sampling, text, matcher, room=ask.room, kept=kept)
        self._loop.ask(ask.number, ask.priority, ask.tokens, reply)

    def _compile(self, ask: Ask) -> None:
        try:
            if self._compiler is None:
                setup = self._setup
                self._compiler = Compiler(setup.pieces, self._model.vocabulary, setup.hidden, setup.ends)
            self._orders.put(_Compiled(ask, self._compiler.matcher(ask.sampling)))
        except Exception as error:  # nobody hears of what is raised here, and the question would wait for ever
            failed = EngineUnavailable(f"The engine failed on this request: {error}", retry_after=1.0)
            self._orders.put(_Compiled(ask, error if isinstance(error, AskaheadError) else failed))
