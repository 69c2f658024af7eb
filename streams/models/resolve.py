"""From what a person names as the model to a directory that the engine can load."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from streams.models import check, gguf, hub, names
from streams.models.locate import DEFAULT_MODEL, SHIPPED_BY, Local, Progress, default, locate, readable


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model that is ready to load.

    Attributes:
        name: the name clients see.
        path: a directory in Hugging Face format, or the GGUF file of a recurrent model.
        level: of quantisation, by the name of the GGUF file that it comes from; None where there is none.
    """

    name: str
    path: Path
    level: str | None = None


@dataclass(frozen=True, slots=True)
class _Kept:
    """Where models are kept, and what else all ways to one need.

    Attributes:
        converted: the directory of converted ones.
        cache: the hub's local cache; None for where the hub's own client has it.
        revision: on the hub; None for the main branch.
        progress: see :func:`resolve`.
    """

    converted: Path
    cache: Path | None
    revision: str | None
    progress: Progress


def resolve(
    model: str | None,
    *,
    data_dir: Path,
    progress: Progress,
    models_dir: Path | None = None,
    revision: str | None = None,
) -> ResolvedModel:
    """Find a model, fetching or converting it first where needed. Blocks, for minutes when it must download.

    Args:
        model: a directory in Hugging Face format, a ``.gguf`` file, a directory of such, or a hub id ``org/name``,
            tried in this order; of several GGUF files ``:LEVEL`` behind the name picks one. None or empty for the
            default model.
        data_dir: where converted models are kept, in ``models/``, if there is no ``models_dir``. Created if missing.
        progress: called with one sentence at the start of every step that takes long.
        models_dir: where all models are kept: converted ones in it, downloaded ones in its ``hub/``. Created if
            missing. None leaves downloaded ones where the hub's own client has them.
        revision: branch, tag or commit of a model on the hub; None for its main branch.

    Raises:
        ModelError: there is no such model, or it cannot be fetched, read or converted.
    """
    kept = _Kept(models_dir or data_dir / "models", models_dir and models_dir / "hub", revision, progress)
    if not model:
        return default(lambda name: _hub(name, kept), lambda file, version: _shipped(file, version, kept), revision)
    found = locate(model, revision=revision, progress=progress)
    if isinstance(found, names.Name):
        return _hub(found, kept)
    with readable(model):
        return _local(found, kept)


def _local(found: Local, kept: _Kept) -> ResolvedModel:
    if found.weights is None:
        check.directory(found.directory)
        return ResolvedModel(found.name, found.directory)
    first = found.directory / found.weights.first(str(found.directory))
    identity = gguf.identity(found.directory / each for each in found.weights.files)
    converted = gguf.convert(first, identity, kept.converted, kept.progress)
    return ResolvedModel(found.name, converted, found.weights.level)


def _hub(name: names.Name, kept: _Kept) -> ResolvedModel:
    fetched = hub.fetch(name, kept.progress, revision=kept.revision, cache=kept.cache)
    if fetched.file is None:
        return ResolvedModel(str(name), fetched.path)
    identity = f"{name.base} {fetched.commit} {fetched.file}"
    converted = gguf.convert(fetched.path, identity, kept.converted, kept.progress)
    return ResolvedModel(str(name), converted, names.level_of(fetched.file))


def _shipped(file: Path, version: str, kept: _Kept) -> ResolvedModel:
    # Named by version, not by file: a reinstalled copy is the same model and need not be converted again.
    converted = gguf.convert(file, f"{SHIPPED_BY} {version}", kept.converted, kept.progress)
    return ResolvedModel(DEFAULT_MODEL, converted, names.level_of(file.name))
