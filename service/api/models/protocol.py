"""What the models API says: both vendors' shapes in one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, Field


@dataclass(slots=True)
class ModelCard:
    """The served model, as far as it is known; complete enough to show before the engine is ready.

    Attributes:
        name: the name clients see.
        context: longest prompt plus completion, in tokens; 0 until it is known.
        created: when it was first served here, in Unix seconds.
        loaded: whether it is loaded.
    """

    name: str
    context: int
    created: int
    loaded: bool = False


class Model(BaseModel):
    """A served model."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="Unix seconds.")
    owned_by: str = "askahead"
    max_model_len: int = Field(description="Longest prompt plus completion, in tokens.")
    type: Literal["model"] = "model"
    display_name: str
    created_at: str = Field(description="The same instant as `created`, as RFC 3339.")
    max_input_tokens: int = Field(description="Longest prompt, in tokens.")
    max_tokens: int = Field(description="Longest completion, in tokens.")
    lifecycle: Literal["active"] = "active"
    capabilities: None = None
    deprecated_at: None = None
    retires_at: None = None
    line: None = None

    @classmethod
    def of(cls, card: ModelCard) -> Model:
        """Describe a card."""
        longest = max(0, card.context - 1)
        return cls(
            id=card.name,
            created=card.created,
            max_model_len=card.context,
            display_name=card.name,
            created_at=datetime.fromtimestamp(card.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            max_input_tokens=longest,
            max_tokens=longest,
        )


class LoadedModel(BaseModel):
    """The model, once it is loaded."""

    id: str


class Server(BaseModel):
    """What clients of the old generation are told of the server."""

    version: str
    build: str = Field(description="The engine that it was set up with.")
    licensed: Literal[False] = Field(default=False, description="There are no licence keys.")
    accelerators: list[object] = Field(default=[], description="Empty: they are not told of.")
    model: LoadedModel | None = Field(default=None, description="Null while it is loading.")


class ModelList(BaseModel):
    """All served models: always one."""

    object: Literal["list"] = "list"
    data: list[Model]
    has_more: bool = False
    first_id: str
    last_id: str
    server: Server
