"""What the model has read last: for dashboards that come after the data."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count
from typing import Any

from aiohttp import web

from service.api.entries import protocol
from service.api.requests import session_of
from service.bodies import query_model, respond
from service.core import CORE
from service.openapi import Operation
from streams.engine.base import Tokenizer, text_of
from streams.entries import EntryType
from streams.ingest import Entry


async def entries(request: web.Request) -> web.Response:
    session = session_of(request)
    query = query_model(request, protocol.EntriesQuery)
    session.touch()
    read, version = session.read, session.version
    newest = session.newest(min(query.limit, max(0, read - (query.since or 0))))
    tokenizer = request.app[CORE].manager.engine.tokenizer
    # Long entries take a while to put together.
    shown = await asyncio.to_thread(_shown, newest, read, session.type, tokenizer)
    return respond(request, protocol.EntryList(data=shown, data_version=version).model_dump())


def _shown(
    newest: Sequence[Entry], read: int, type: EntryType | None, tokenizer: Tokenizer
) -> list[protocol.EntryObject]:
    """Entries as clients see them; the last of them is number ``read``."""

    def said(entry: Entry) -> str | dict[str, Any]:
        if type is not None and entry.record is not None:
            return type.pack(entry.record)
        return text_of(entry.tokens, tokenizer).removesuffix("\n")

    return [
        protocol.EntryObject(number=number, accepted_at=entry.at, entry=said(entry))
        for number, entry in zip(count(read - len(newest) + 1), newest, strict=False)
    ]


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/sessions/{id}/entries",
        handler=entries,
        tag="Data",
        summary="The newest entries",
        description="Ours. What the model has read last and still sees, oldest first; go on with the last `number` as "
        "`since`. Frozen entries are context and not among them.",
        query=protocol.EntriesQuery,
        response=protocol.EntryList,
        statuses={404: "Unknown session."},
    ),
)
