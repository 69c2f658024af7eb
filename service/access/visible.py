"""The sessions that a request may know of. Whatever takes or names a session for a client goes through here."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from service.access.clients import Client
from service.core import CORE
from service.errors import Forbidden
from service.keys import CLIENT
from streams.context import SESSION
from streams.manager import Manager
from streams.session import Session, gone


@dataclass(frozen=True, slots=True)
class Visible:
    """The sessions of one client: all, or those whose ids start with its prefix. The others do not exist for it."""

    manager: Manager
    client: Client

    def get(self, session_id: str) -> Session:
        """The session of that id.

        Raises:
            NotFound: there is none.
        """
        return self.manager.get(_seen(self.client, session_id))

    def all(self) -> list[Session]:
        """All of them, oldest first."""
        return [session for session in self.manager.sessions() if self.client.sees(session.id)]

    async def create(self, session_id: str | None = None, system: str | None = None, **options: Any) -> Session:
        """A new session; arguments as :meth:`streams.manager.Manager.create`, which raises besides.

        Raises:
            Forbidden: the id does not start with the client's prefix.
        """
        prefix = self.client.prefix
        if session_id is None and prefix:
            session_id = f"{prefix}{secrets.token_hex(8)}"
        if session_id is not None and not self.client.sees(session_id):
            raise _outside(prefix, "id")
        session = await self.manager.create(session_id, system, **options)
        SESSION.set(session.id)
        return session


def visible(request: web.Request) -> Visible:
    """The sessions of the client that a request comes from. Raises EngineUnavailable until there can be any."""
    return Visible(request.app[CORE].manager, request[CLIENT])


def visible_id(request: web.Request, session_id: str) -> str:
    """The id of a session, whoever owns it.

    Raises:
        NotFound: there is none that the client may know of.
    """
    return _seen(request[CLIENT], session_id)


def visible_prefix(request: web.Request, wanted: str | None) -> str | None:
    """The prefix of what is visible of the sessions whose ids start with ``wanted``.

    Raises:
        Forbidden: nothing is, whatever sessions there are.
    """
    own = request[CLIENT].prefix
    if wanted is None or wanted.startswith(own):
        return wanted
    if own.startswith(wanted):
        return own
    raise _outside(own, "prefix")


def _seen(client: Client, session_id: str) -> str:
    if not client.sees(session_id):
        raise gone(session_id)
    return session_id


def _outside(prefix: str, param: str) -> Forbidden:
    return Forbidden(
        f"{param}: this key is limited to sessions whose ids start with '{prefix}'", code="key_is_limited", param=param
    )
