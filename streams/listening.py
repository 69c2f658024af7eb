"""Who is above the streams and wants to know what happens to them. Nothing calls up: what is above listens."""

from __future__ import annotations

from typing import Protocol

from streams.session import Session


class Listener(Protocol):
    """Hears of sessions."""

    def created(self, session: Session) -> None:
        """There is a new session."""

    async def adopted(self, session: Session) -> None:
        """There is a session that was another server's, or this one's before a restart."""

    def settled(self, session: Session, tokens: int, seconds: float) -> None:
        """A new version is resident: ``tokens`` were read, ``seconds`` after the oldest entry was accepted."""

    def turned(self, session: Session) -> None:
        """A new version: a turn was settled."""

    def moved(self, session: Session, tokens: int) -> None:
        """A new version: the window moved on, and ``tokens`` were read for it."""

    def froze(self, session: Session) -> None:
        """A new version: data was frozen."""

    async def deleted(self, session: Session) -> None:
        """The session is gone."""

    async def lost(self, session: Session) -> None:
        """The session is another server's by now."""


class Listeners:
    """A :class:`Listener` that tells all it has, in order."""

    def __init__(self) -> None:
        self._all: list[Listener] = []

    def add(self, listener: Listener) -> None:
        """Tell ``listener`` as well, from now on."""
        self._all.append(listener)

    def created(self, session: Session) -> None:
        for listener in self._all:
            listener.created(session)

    async def adopted(self, session: Session) -> None:
        for listener in self._all:
            await listener.adopted(session)

    def settled(self, session: Session, tokens: int, seconds: float) -> None:
        for listener in self._all:
            listener.settled(session, tokens, seconds)

    def turned(self, session: Session) -> None:
        for listener in self._all:
            listener.turned(session)

    def moved(self, session: Session, tokens: int) -> None:
        for listener in self._all:
            listener.moved(session, tokens)

    def froze(self, session: Session) -> None:
        for listener in self._all:
            listener.froze(session)

    async def deleted(self, session: Session) -> None:
        for listener in self._all:
            await listener.deleted(session)

    async def lost(self, session: Session) -> None:
        for listener in self._all:
            await listener.lost(session)
