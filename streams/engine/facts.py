"""What an engine may tell of its model and machine beside what streams need to know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from streams.models.shape import Shape

TemplateSource = Literal["model", "override", "plain"]
"""Where the chat template is from: the model, the operator, or nobody: then it is the plain one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """How large a model is; None for what the engine cannot tell.

    Attributes:
        weights: bytes of its weights, as they are loaded, over all workers of a rank.
        parameters: numbers in its weights.
        layers, hidden: how many, and the width between them.
        heads, kv_heads: of attention; 0 for a model without.
        trained_context: tokens it was trained for.
        kv_type: number format of what is kept of a sequence, such as fp16.
        quantization: number format of the weights, where it is not a plain one.
    """

    weights: int | None = None
    parameters: int | None = None
    layers: int | None = None
    hidden: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    trained_context: int | None = None
    kv_type: str | None = None
    quantization: str | None = None

    @classmethod
    def of(
        cls, shape: Shape, *, weights: int | None, kv_type: str | None, quantization: str | None = None
    ) -> ModelSize:
        """The size of a model of this shape."""
        return cls(
            weights=weights,
            parameters=shape.parameters,
            layers=shape.layers,
            hidden=shape.hidden,
            heads=shape.heads,
            kv_heads=shape.kv_heads,
            trained_context=shape.context,
            kv_type=kv_type,
            quantization=quantization,
        )


@dataclass(frozen=True, slots=True)
class Accelerator:
    """A GPU.

    Attributes:
        name: its maker's name for it.
        description: what kind of device it is.
        memory: bytes that it has.
        free: bytes that were free when the model had been loaded.
    """

    name: str
    description: str
    memory: int
    free: int
