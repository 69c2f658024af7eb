"""Traces: what became of a push or a question, step by step, and how long each step took.

Nothing is recorded until what is above says by what, with :func:`use`, and then it says where spans go. Until then a
span costs no more than finding that out.

A span is named to others by its ``traceparent``, the text that W3C Trace Context puts into headers: it is handed to
children, through queues and through Redis alike. Attributes follow OpenTelemetry's semantic conventions where those
have a name.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Protocol

Attributes = Mapping[str, str | bool | int | float | Sequence[str]]
Kind = Literal["internal", "server", "client", "producer"]

# As many links as OpenTelemetry lets a span have.
_LINKS_MAX = 128


class Span:
    """A step of a trace; this one is recorded nowhere.

    As a context manager it is the current span inside, ends with it, and fails with what is raised.

    Attributes:
        traceparent: names it; empty if it is recorded nowhere.
    """

    traceparent = ""

    def active(self) -> AbstractContextManager[object]:
        """Inside, it is the current span, of which others become children. It does not end there."""
        return nullcontext()

    def set(self, attributes: Attributes) -> None:
        """Add attributes."""

    def end(self, error: BaseException | str | None = None) -> None:
        """It is over, and has failed if there is an ``error``, or a word for one. To be called once."""

    def __enter__(self) -> Span:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """See the class."""


class Recorded(Span):
    """One that is recorded; whoever records says how, in :meth:`set` and :meth:`end`."""

    def __init__(self, traceparent: str) -> None:
        self.traceparent = traceparent
        self._active: AbstractContextManager[object] = nullcontext()

    @contextmanager
    def active(self) -> Iterator[None]:
        token = _current.set(self.traceparent)
        try:
            yield
        finally:
            _current.reset(token)

    def __enter__(self) -> Span:
        self._active = self.active()
        self._active.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._active.__exit__(None, None, None)
        self.end(error)


class Tracer(Protocol):
    """Records spans."""

    def start(self, name: str, attributes: Attributes, parent: str, links: Sequence[str], kind: Kind) -> Span:
        """See :func:`start`."""


OFF = Span()
"""Stands for every span that is not recorded."""

_current: ContextVar[str] = ContextVar("traceparent", default="")
_tracer: Tracer | None = None


@contextmanager
def use(tracer: Tracer) -> Iterator[None]:
    """Inside, spans are recorded by ``tracer``."""
    global _tracer
    before, _tracer = _tracer, tracer
    try:
        yield
    finally:
        _tracer = before


def on() -> bool:
    """Whether anything is recorded."""
    return _tracer is not None


def current() -> str:
    """``traceparent`` of the current span; empty if there is none."""
    return _current.get()


def trace_id() -> str:
    """The trace that the current span belongs to, as 32 hexadecimal digits; empty if there is none."""
    return current()[3:35]


def headers() -> dict[str, str]:
    """Headers that continue the current trace elsewhere."""
    return {"traceparent": traceparent} if (traceparent := current()) else {}


def start(
    name: str,
    attributes: Attributes,
    *,
    parent: str = "",
    links: Sequence[str] = (),
    kind: Kind = "internal",
) -> Span:
    """Begin a span.

    Args:
        name: what is done, of few different kinds.
        attributes: to what, and how much of it.
        parent: what it is part of; it begins a trace of its own if that is empty, or no ``traceparent``.
        links: what else has led to it.
        kind: whom it is between.
    """
    return OFF if _tracer is None else _tracer.start(name, attributes, parent, links, kind)


def child(name: str, attributes: Attributes, *, kind: Kind = "internal") -> Span:
    """Begin a part of the current span; where there is none, nothing is recorded. Arguments as of :func:`start`."""
    parent = current()
    return start(name, attributes, parent=parent, kind=kind) if parent else OFF


def sampled(traceparent: str) -> bool:
    """Whether what it names is recorded, and not only passed on."""
    return traceparent[-2:] in ("01", "03")


@dataclass(slots=True)
class Causes:
    """What of what waits was pushed in a trace that is recorded: the newest, up to as many as a span may link to."""

    _by_number: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=_LINKS_MAX))

    def add(self, number: int, traceparent: str) -> None:
        """Note what pushed the entries up to ``number``; numbers rise."""
        if sampled(traceparent):
            self._by_number.append((number, traceparent))

    def of(self, number: int) -> list[str]:
        """What pushed the entries up to ``number``, oldest first."""
        return [traceparent for last, traceparent in self._by_number if last <= number]

    def forget(self, number: int) -> None:
        """The entries up to ``number`` do not wait any more."""
        while self._by_number and self._by_number[0][0] <= number:
            self._by_number.popleft()
