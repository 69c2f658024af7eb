"""Models from the Hugging Face hub, or from its local cache where the hub cannot be reached."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from streams.errors import ModelError
from streams.models import check, download, names

REACH_TIMEOUT_S = 5.0
"""How long each phase of the first request (connect, then answer) may take before the hub counts as unreachable."""

WANTED = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken"]
UNWANTED = [
    "*/*",  # other formats and checkpoints; what the engine loads is at the top
    "consolidated*.safetensors",  # the same weights once more, in another layout
]


@dataclass(frozen=True, slots=True)
class Fetched:
    """A model in the hub's local cache.

    Attributes:
        path: a directory in Hugging Face format, or a GGUF file, the first of several parts.
        file: the GGUF file's path in its repository, None for a directory.
        commit: of the repository.
    """

    path: Path
    file: str | None
    commit: str


@dataclass(frozen=True, slots=True)
class Choice:
    """What of a repository is the model: a GGUF file and its parts, or None for what is in Hugging Face format."""

    weights: names.Weights | None

    @property
    def patterns(self) -> dict[str, Any]:
        """As arguments of the hub's client."""
        if self.weights is None:
            return {"allow_patterns": WANTED, "ignore_patterns": UNWANTED}
        return {"allow_patterns": list(self.weights.files)}

    def has(self, file: str) -> bool:
        """Whether the file belongs to it."""
        if self.weights is None:
            return _matches(file, WANTED) and not _matches(file, UNWANTED)
        return file in self.weights.files


@dataclass(frozen=True, slots=True)
class Listed:
    """What the hub says of a model before anything of it is downloaded.

    Attributes:
        commit: of the repository.
        choice: what of the repository is the model.
        files: those files, each with its size in bytes and, if it is a large one, its SHA-256.
    """

    commit: str
    choice: Choice
    files: Mapping[str, tuple[int, str | None]]


class Unreachable(Exception):
    """The hub does not answer. Whoever catches it looks into the local cache."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self._reason = reason

    def refusal(self, name: names.Name, revision: str | None, *, begun: bool) -> ModelError:
        """What to say where that has no copy.

        Args:
            name: of the model.
            revision: see :func:`fetch`.
            begun: whether the cache has something of it.
        """
        from huggingface_hub.errors import OfflineModeIsEnabled

        if isinstance(self._reason, OfflineModeIsEnabled):
            why = "HF_HUB_OFFLINE is set"
        else:
            why = f"The hub cannot be reached ({_first_line(self._reason)})"
        return _error(
            f"{why} and {name}{'' if revision is None else f' of revision {revision}'} is not "
            f"{'complete ' if begun else ''}in the local cache; "
            f"go online once, or name a local directory or .gguf file instead."
        )


def look(name: names.Name, progress: Callable[[str], None], *, revision: str | None = None) -> Listed:
    """Ask the hub for a model's files, and choose among them as :func:`fetch` says.

    Raises:
        ModelError: unknown, private, gated or not loadable.
        Unreachable: the hub does not answer within :data:`REACH_TIMEOUT_S`.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repo = name.base
    try:
        # A download has no time limit for metadata, so this request decides whether the hub is there.
        info = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=REACH_TIMEOUT_S)
    except HFValidationError as error:
        raise _error(f"{repo} is neither a directory here nor a possible name on the hub; check the name.") from error
    except GatedRepoError as error:
        raise _gated(repo) from error
    except RepositoryNotFoundError as error:
        raise _error(
            f"There is no model {repo} on the hub, and no such directory here; "
            f"check the name, or set HF_TOKEN if it is private."
        ) from error
    except RevisionNotFoundError as error:
        raise _error(
            f"{repo} has no revision {revision} on the hub; set --revision to one of its branches, tags or commits."
        ) from error
    # The client's network errors have no base class of its own, and their module changed between its versions.
    except Exception as error:
        raise Unreachable(error) from error
    siblings = info.siblings or []
    choice = _choose(name, (sibling.rfilename for sibling in siblings), progress)
    files = {
        sibling.rfilename: (sibling.size or 0, None) if sibling.lfs is None else (sibling.lfs.size, sibling.lfs.sha256)
        for sibling in siblings
        if choice.has(sibling.rfilename)
    }
    return Listed(info.sha or "main", choice, files)


def fetch(
    name: names.Name, progress: Callable[[str], None], *, revision: str | None = None, cache: Path | None = None
) -> Fetched:
    """Download what is missing of a model, with a progress bar on a terminal, else a sentence for every tenth.

    ``HF_HUB_OFFLINE``, ``HF_TOKEN``, ``HF_HOME`` and ``HF_ENDPOINT`` work as with every client of the hub.

    Args:
        name: ``org/name``, with a level if a GGUF file is wanted. Without one, a repository that has safetensors is
            taken as it is, and of one with GGUF files only, the level that :mod:`streams.models.names` prefers.
        progress: called with one sentence before a download, and while it goes on.
        revision: a branch, tag or commit; None for the main branch.
        cache: the hub's local cache; None for where the hub's own client has it.

    Raises:
        ModelError: unknown, private, gated or not loadable, or the hub is unreachable and the cache has no copy.
    """
    from huggingface_hub import constants, snapshot_download

    try:
        listed = look(name, progress, revision=revision)
    except Unreachable as away:
        return _cached(name, away, revision, cache)
    progress(f"Fetching {name} from the hub, unless it is in the local cache")
    with failing(name.base):
        download.download(
            name.base,
            listed.commit,
            [download.File(file, size, sha256) for file, (size, sha256) in listed.files.items() if sha256 is not None],
            Path(cache or constants.HF_HUB_CACHE),
            progress,
        )
        snapshot = snapshot_download(
            name.base,
            revision=revision,
            cache_dir=cache,
            tqdm_class=download.no_bars(),
            **listed.choice.patterns,
        )
    return _fetched(name, listed.choice, Path(snapshot))


@contextmanager
def failing(repo: str) -> Iterator[None]:
    """Say in a sentence what makes a download fail."""
    from huggingface_hub.errors import GatedRepoError

    try:
        yield
    except ModelError:
        raise
    except GatedRepoError as error:
        raise _gated(repo) from error
    except Exception as error:
        raise _error(
            f"Fetching {repo} from the hub failed: {_first_line(error)}; start again to continue where it stopped."
        ) from error


def snapshot(name: names.Name, away: Unreachable, revision: str | None, cache: Path | None) -> Path:
    """What the local cache has of a model.

    Raises:
        ModelError: nothing.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(name.base, revision=revision, cache_dir=cache, allow_patterns=[], local_files_only=True)
        )
    except LocalEntryNotFoundError:
        raise away.refusal(name, revision, begun=False) from away


def _cached(name: names.Name, away: Unreachable, revision: str | None, cache: Path | None) -> Fetched:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    there = snapshot(name, away, revision, cache)
    present = [path.relative_to(there).as_posix() for path in there.rglob("*") if path.is_file()]
    try:
        choice = _choose(name, present, lambda _: None)
        snapshot_download(name.base, revision=revision, cache_dir=cache, local_files_only=True, **choice.patterns)
    except (LocalEntryNotFoundError, ModelError):
        raise away.refusal(name, revision, begun=True) from away
    return _fetched(name, choice, there)


def _choose(name: names.Name, files: Iterable[str], progress: Callable[[str], None]) -> Choice:
    files = list(files)
    if name.level is None and names.loadable(files):
        return Choice(None)
    models = names.among(files)
    if name.level is None and not models:
        raise _error(
            f"{name} cannot be loaded: it needs config.json and *.safetensors files, or GGUF files; "
            f"choose another model."
        )
    chosen = names.choose(files, name.level, name.base)
    if name.level is None and len(models) > 1:
        progress(f"{name} has {len(models)} GGUF models, of which {chosen.name} is taken; {name}:LEVEL takes another")
    return Choice(chosen)


def _fetched(name: names.Name, choice: Choice, snapshot: Path) -> Fetched:
    if choice.weights is None:
        check.directory(snapshot)
        return Fetched(snapshot, None, snapshot.name)
    file = choice.weights.first(name.base)
    return Fetched(snapshot / file, file, snapshot.name)


def _matches(file: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(file, pattern) for pattern in patterns)


def _gated(repo: str) -> ModelError:
    return _error(f"{repo} is gated: accept its terms on its page on the hub, then set HF_TOKEN to your access token.")


def _error(message: str) -> ModelError:
    return ModelError(message, param="model")


def _first_line(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0].rstrip(".")
    return text or type(error).__name__
