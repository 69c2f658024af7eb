"""Wire models of a Flash Query's webhook. All of it is ours."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field

from flashquery.notify import key_of
from flashquery.queries import FlashQuery
from service.addresses import check_url
from service.bodies import Strict


def _url(text: str) -> str:
    check_url(text)
    return text


def _secret(text: str) -> str:
    key_of(text)
    return text


Url = Annotated[
    str, AfterValidator(_url), Field(max_length=2048, description="Where to: http or https, at a public address.")
]


class Notify(Strict):
    """Who is told when an answer changes."""

    url: Url
    secret: Annotated[
        Annotated[str, AfterValidator(_secret), Field(max_length=128)] | None,
        Field(
            description="Signs the messages: `whsec_` and the base64 of 24 to 64 bytes. Made by the server if absent, "
            "and then told once, in the answer to the registration.",
        ),
    ] = None

    @classmethod
    def of(cls, given: Notify | str) -> Notify:
        """What a client gave, which may be the URL alone."""
        return cls(url=given) if isinstance(given, str) else given


class NotifyObject(BaseModel):
    """Who is told when an answer changes."""

    url: str
    secret: Annotated[
        str | None, Field(description="At registration, if the server made it; it is not told again.")
    ] = None

    @classmethod
    def of(cls, query: FlashQuery) -> NotifyObject | None:
        """The webhook of a query, if it has one, without the secret."""
        return None if query.notify is None else cls(url=query.notify.url)

    @classmethod
    def registered(cls, query: FlashQuery, given: Notify | str | None) -> NotifyObject | None:
        """The same, with the secret if the client gave none."""
        found = cls.of(query)
        if found is not None and query.notify is not None and given is not None and Notify.of(given).secret is None:
            found.secret = query.notify.secret
        return found
