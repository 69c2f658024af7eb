"""Wire models of what the model has read; all ours."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from service.api.fields import INT64
from service.bodies import Strict


class EntriesQuery(Strict):
    """Query string of the entries."""

    limit: Annotated[int, Field(ge=1, le=1000, description="Most entries to return; the newest.")] = 100
    since: Annotated[int | None, Field(ge=0, lt=INT64, description="Only entries with a higher `number`.")] = None


class EntryObject(BaseModel):
    """An entry that the model has read."""

    number: Annotated[int, Field(description="The first entry that was ever read is number 1.")]
    accepted_at: Annotated[float, Field(description="Unix seconds, with fractions.")]
    entry: Annotated[
        str | dict[str, Any], Field(description="As it was pushed: text, or an object of the session's `type`.")
    ]


class EntryList(BaseModel):
    """The newest entries of a session, oldest first."""

    object: Literal["list"] = "list"
    data: list[EntryObject]
    data_version: Annotated[int, Field(description="The version whose newest entries these are.")]
