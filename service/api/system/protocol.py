"""What the system's own endpoints say."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Literal

from pydantic import BaseModel, Field, create_model

from service.metrics import GAUGES, Counters


class State(BaseModel):
    """How the server is."""

    status: Literal["ok", "unavailable"] = Field(description="`ok` once questions can be answered.")
    engine: str = Field(description="`loading`, `ready`, `restarting` or `failed`.")
    store: Literal["ok", "degraded"] = Field(description="`degraded` while Redis does not answer.")
    uptime_ms: int = Field(description="Milliseconds since the start.")


class Alive(BaseModel):
    """That the server answers."""

    status: Literal["ok"] = "ok"


_NUMBERS: dict[str, Any] = {name: (int, Field(description=text)) for name, text in GAUGES.items()}
_NUMBERS |= {item.name: (int, Field(description=item.metadata["description"])) for item in fields(Counters)}

Health: type[BaseModel] = create_model("Health", __base__=State, **_NUMBERS)
"""The state, with every present value and counter as a number."""
