"""Models from the Hugging Face hub, or from its local cache where the hub cannot be reached."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from streams.errors import ModelError

REACH_TIMEOUT_S = 5.0
"""How long each phase of the first request (connect, then answer) may take before the hub counts as unreachable."""

WANTED = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken"]
UNWANTED = [
    "*/*",  # other formats and checkpoints; what the engine loads is at the top
    "consolidated*.safetensors",  # the same weights once more, in another layout
]


def fetch(repo: str, progress: Callable[[str], None]) -> Path:
    """Download what is missing of a model, with a progress bar on a terminal.

    ``HF_HUB_OFFLINE``, ``HF_TOKEN``, ``HF_HOME`` and ``HF_ENDPOINT`` work as with every client of the hub.

    Args:
        repo: ``org/name``.
        progress: called with one sentence before a download.

    Returns:
        A directory with ``config.json`` and safetensors in the hub's local cache.

    Raises:
        ModelError: unknown, private, gated or not loadable, or the hub is unreachable and the cache has no copy.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    try:
        # The download has no time limit for metadata, so this request decides whether the hub is there.
        HfApi().model_info(repo, timeout=REACH_TIMEOUT_S)
    except HFValidationError as error:
        raise _error(f"{repo} is neither a directory here nor a possible name on the hub; check the name.") from error
    except GatedRepoError as error:
        raise _gated(repo) from error
    except RepositoryNotFoundError as error:
        raise _error(
            f"There is no model {repo} on the hub, and no such directory here; "
            f"check the name, or set HF_TOKEN if it is private."
        ) from error
    # The client's network errors have no base class of its own, and their module changed between its versions.
    except Exception as error:
        return _cached(repo, error)

    progress(f"Fetching {repo} from the hub, unless it is in the local cache")
    try:
        snapshot = snapshot_download(repo, allow_patterns=WANTED, ignore_patterns=UNWANTED)
    except GatedRepoError as error:
        raise _gated(repo) from error
    except Exception as error:
        raise _error(
            f"Fetching {repo} from the hub failed: {_first_line(error)}; start again to continue where it stopped."
        ) from error
    return _loadable(repo, Path(snapshot))


def _cached(repo: str, reason: Exception) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        snapshot = snapshot_download(repo, allow_patterns=WANTED, ignore_patterns=UNWANTED, local_files_only=True)
    except LocalEntryNotFoundError:
        if isinstance(reason, OfflineModeIsEnabled):
            why = "HF_HUB_OFFLINE is set"
        else:
            why = f"The hub cannot be reached ({_first_line(reason)})"
        raise _error(
            f"{why} and {repo} is not in the local cache; "
            f"go online once, or name a local directory or .gguf file instead."
        ) from reason
    return _loadable(repo, Path(snapshot))


def _loadable(repo: str, snapshot: Path) -> Path:
    if not (snapshot / "config.json").is_file() or not any(snapshot.glob("*.safetensors")):
        raise _error(f"{repo} cannot be loaded: it needs config.json and *.safetensors files; choose another model.")
    return snapshot


def _gated(repo: str) -> ModelError:
    return _error(f"{repo} is gated: accept its terms on its page on the hub, then set HF_TOKEN to your access token.")


def _error(message: str) -> ModelError:
    return ModelError(message, param="model")


def _first_line(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0].rstrip(".")
    return text or type(error).__name__
