"""Where a model comes from: a directory, a GGUF file, the hub, or the copy that ships with the installation."""

from streams.models.resolve import DEFAULT_MODEL, ResolvedModel, resolve

__all__ = ["DEFAULT_MODEL", "ResolvedModel", "resolve"]
