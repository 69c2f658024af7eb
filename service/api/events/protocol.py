"""Wire models of the feeds of several sessions; all ours."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from service.api.fields import SESSION_ID
from service.api.sessions.protocol import SocketMessage
from service.bodies import Strict
from service.delivery.resume import SocketQuery, StreamQuery


class _Watching(Strict):
    """Which sessions a connection hears of."""

    session: Annotated[
        tuple[Annotated[str, Field(pattern=SESSION_ID)], ...],
        Field(description="A session's id; repeat it for more."),
    ] = ()
    prefix: Annotated[
        str | None,
        Field(
            pattern=r"^[A-Za-z0-9_-]{0,128}$",
            description="Every session whose id starts so, those created later included; empty for all.",
        ),
    ] = None


class FeedQuery(_Watching, StreamQuery):
    """Query string of the event stream of several sessions."""


class FeedSocketQuery(_Watching, SocketQuery):
    """Query string of the websocket of several sessions."""


class AddressedMessage(SocketMessage):
    """A message from a client of the socket of several sessions."""

    session_id: Annotated[str, Field(pattern=SESSION_ID)] = ""

    @model_validator(mode="after")
    def _push_is_addressed(self) -> AddressedMessage:
        if self.type == "push" and not self.session_id:
            raise ValueError("a push needs `session_id`: the session to push to")
        return self
