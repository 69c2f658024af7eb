"""What the models API says: both vendors' shapes in one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, Field

from service.engine import max_sequences
from service.settings import Settings
from streams.engine.base import Engine, ModelFacts
from streams.engine.facts import Accelerator, TemplateSource
from streams.models import names

OWNER = "askahead"


@dataclass(slots=True)
class ModelCard:
    """The served model, as far as it is known; complete enough to show before the engine is ready.

    Attributes:
        name: the name clients see.
        context: longest prompt plus completion, in tokens; 0 until it is known.
        created: when it was first served here, in Unix seconds.
        level: of quantisation, of the GGUF file that it comes from.
        facts: what the engine knows of it; None until it is loaded.
        reasons: whether its replies may begin with reasoning; None until it is loaded.
    """

    name: str
    context: int
    created: int
    level: str | None = None
    facts: ModelFacts | None = None
    reasons: bool | None = None

    def loaded(self, engine: Engine) -> None:
        """Take down what is known of the model now."""
        self.facts, self.reasons = engine.facts, engine.dialect.reasons
        self.name, self.context = engine.facts.name, engine.facts.context

    @property
    def owner(self) -> str:
        """Whose model it is: an organisation on the hub, or nobody's but the server's."""
        return names.parse(self.name).organisation or OWNER

    @property
    def plain(self) -> bool:
        """Whether it is served with the plain chat template."""
        return self.facts is not None and self.facts.chat_template == "plain"


class Model(BaseModel):
    """A served model."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="Unix seconds.")
    owned_by: str = Field(description="Its organisation on the hub; `askahead` for others.")
    max_model_len: int = Field(description="Longest prompt plus completion, in tokens; 0 until it is known.")
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
    context: int | None = Field(description="As `max_model_len`; null until it is known.")
    reasoning: bool | None = Field(
        description="Whether replies may begin with reasoning, which fits Flash Queries badly. Null while loading."
    )
    chat_template: TemplateSource | None = Field(
        description="`model`: its own. `override`: the operator's. `plain`: it has none, and roles are ordinary text, "
        "which pushed data can imitate. Null while it is loading."
    )
    quantization: str | None = Field(
        description="Number format of the weights: a GGUF file's level, or the engine's name for it. Null where it "
        "is a plain one or not known."
    )
    kv_cache_type: str | None = Field(description="Number format of the KV cache; null while the model is loading.")

    @classmethod
    def of(cls, card: ModelCard) -> Model:
        """Describe a card."""
        longest, facts = max(0, card.context - 1), card.facts
        return cls(
            id=card.name,
            created=card.created,
            owned_by=card.owner,
            max_model_len=card.context,
            display_name=card.name,
            created_at=datetime.fromtimestamp(card.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            max_input_tokens=longest,
            max_tokens=longest,
            context=card.context or None,
            reasoning=card.reasons,
            chat_template=facts and facts.chat_template,
            quantization=card.level or (facts and facts.size.quantization),
            kv_cache_type=facts and facts.size.kv_type,
        )


class LoadedModel(BaseModel):
    """The model, once it is loaded. What the engine cannot tell is null."""

    id: str
    size_bytes: int | None = Field(description="The weights, as they are loaded.")
    params: int | None = Field(description="Numbers in the weights.")
    layers: int | None
    hidden_size: int | None
    attention_heads: int | None = Field(description="0 for a model without attention.")
    kv_heads: int | None = Field(description="0 for a model without attention.")
    trained_context: int | None = Field(description="Tokens; null for a model without a limit.")
    kv_cache_type: str | None = Field(description="Number format of the KV cache, or of a recurrent model's states.")

    @classmethod
    def of(cls, facts: ModelFacts) -> LoadedModel:
        """Describe what the engine knows."""
        size = facts.size
        return cls(
            id=facts.name,
            size_bytes=size.weights,
            params=size.parameters,
            layers=size.layers,
            hidden_size=size.hidden,
            attention_heads=size.heads,
            kv_heads=size.kv_heads,
            trained_context=size.trained_context,
            kv_cache_type=size.kv_type,
        )


class Scheduler(BaseModel):
    """Bounds of what runs at once."""

    max_concurrent: int = Field(description="Questions at once.")
    max_sessions: int = Field(description="Live sessions.")
    max_sequences: int = Field(description="Streams held and requests running, on each rank.")
    batch_tokens: int = Field(description="Tokens computed in one step; 0 for no bound.")
    context: int = Field(description="Longest prompt plus completion, in tokens.")
    prefix_slots: int = Field(description="Streams of a whole context that each rank can keep resident.")
    chunk_size: int = Field(description="Tokens of pushed data that are read at a stretch.")

    @classmethod
    def of(cls, facts: ModelFacts, settings: Settings) -> Scheduler:
        """Those of an engine, under these settings."""
        return cls(
            max_concurrent=settings.max_questions,
            max_sessions=settings.max_sessions,
            max_sequences=max_sequences(settings),
            batch_tokens=facts.batch_tokens,
            context=facts.context,
            prefix_slots=facts.kv_capacity // facts.block_size // facts.footprint.blocks(facts.context),
            chunk_size=settings.slice_tokens_max,
        )


class Device(BaseModel):
    """A GPU of the server's machine."""

    name: str
    description: str
    vram_mb: int = Field(description="Its memory, in MiB.")
    free_mb: int = Field(description="What was free of it when the model had been loaded, in MiB.")

    @classmethod
    def of(cls, accelerator: Accelerator) -> Device:
        """Describe one."""
        return cls(
            name=accelerator.name,
            description=accelerator.description,
            vram_mb=accelerator.memory >> 20,
            free_mb=accelerator.free >> 20,
        )


class Server(BaseModel):
    """The server behind the model."""

    version: str
    build: str = Field(description="The engine that it was set up with.")
    licensed: Literal[False] = Field(default=False, description="There are no licence keys.")
    accelerators: list[Device] = Field(
        description="Those of this machine; empty on a CPU, and until the model is loaded."
    )
    model: LoadedModel | None = Field(description="Null while it is loading.")
    scheduler: Scheduler | None = Field(description="Null while the model is loading.")

    @classmethod
    def of(cls, facts: ModelFacts | None, settings: Settings, version: str, build: str) -> Server:
        """Describe it, as far as the engine is there."""
        return cls(
            version=version,
            build=build,
            accelerators=[Device.of(one) for one in facts.accelerators] if facts else [],
            model=facts and LoadedModel.of(facts),
            scheduler=facts and Scheduler.of(facts, settings),
        )


class ModelList(BaseModel):
    """All served models: always one."""

    object: Literal["list"] = "list"
    data: list[Model]
    has_more: bool = False
    first_id: str
    last_id: str
    server: Server
