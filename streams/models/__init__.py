"""Where a model comes from: a directory, a GGUF file, the hub, or the copy that ships with the installation."""

from streams.models.locate import DEFAULT_MODEL
from streams.models.resolve import ResolvedModel, resolve

__all__ = ["DEFAULT_MODEL", "ResolvedModel", "resolve"]
