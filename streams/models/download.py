"""Large files from the hub, each continued where an earlier download of it was cut off.

The hub's own client begins a file anew after a crash. So what is large is put into its cache from here, as the blob
that it would write itself, and it finds that done.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from streams.errors import ModelError

PART = ".part"
"""Suffix of a blob that is being fetched. Whoever holds the blob's lock may write to it."""

_AT_ONCE = 4
"""Files fetched side by side: one connection rarely fills a fast line."""
_GB = 10**9


@dataclass(frozen=True, slots=True)
class File:
    """A file of a repository on the hub.

    Attributes:
        name: path in the repository.
        size: in bytes.
        sha256: of its content, in hexadecimal.
    """

    name: str
    size: int
    sha256: str


def download(repo: str, commit: str, files: Sequence[File], cache: Path, progress: Callable[[str], None]) -> None:
    """Bring files into the hub's local cache, unless they are there. Processes that share it take turns.

    Args:
        repo: ``org/name``.
        commit: of the repository.
        files: which.
        cache: the hub's local cache.
        progress: called with one sentence for each tenth of the bytes; on a terminal there are bars instead.

    Raises:
        ModelError: there is no room, or a file arrived damaged.
        Exception: whatever the hub's client raises; what has arrived stays for the next call.
    """
    from huggingface_hub.file_download import repo_folder_name

    folder = repo_folder_name(repo_id=repo, repo_type="model")
    blobs, locks = cache / folder / "blobs", cache / ".locks" / folder
    missing = [file for file in files if not _complete(blobs / file.sha256, file)]
    if not missing:
        return
    for directory in (blobs, locks):
        directory.mkdir(parents=True, exist_ok=True)
    there = sum(_size(_part(blobs, file)) for file in missing)
    _refuse_full_disk(repo, sum(file.size for file in missing) - there, cache)
    meter = _Meter(repo, sum(file.size for file in missing), progress)
    try:
        _side_by_side([partial(_fetch, repo, commit, file, blobs, locks, meter) for file in missing])
    except BaseException:
        meter.stop()
        raise


def _side_by_side(jobs: Sequence[Callable[[], None]]) -> None:
    """Run jobs, some at once, and raise the first error.

    In daemon threads: those of an executor would keep a server from ending until the last byte is here.
    """
    waiting: SimpleQueue[Callable[[], None]] = SimpleQueue()
    outcomes: SimpleQueue[BaseException | None] = SimpleQueue()
    for job in jobs:
        waiting.put(job)

    def work() -> None:
        try:
            while True:
                waiting.get_nowait()()
                outcomes.put(None)
        except Empty:
            return
        except BaseException as error:  # for the one who waits
            outcomes.put(error)

    for number in range(min(_AT_ONCE, len(jobs))):
        threading.Thread(target=work, name=f"download-{number}", daemon=True).start()
    for _ in jobs:
        error = outcomes.get()
        if error is not None:
            raise error


def _fetch(repo: str, commit: str, file: File, blobs: Path, locks: Path, meter: _Meter) -> None:
    from huggingface_hub.file_download import hf_hub_url, http_get
    from huggingface_hub.utils import WeakFileLock, build_hf_headers  # type: ignore[attr-defined]

    blob, part = blobs / file.sha256, _part(blobs, file)
    # The lock that the hub's client takes for this blob.
    with WeakFileLock(locks / f"{file.sha256}.lock"):
        if _complete(blob, file):
            meter.add(file.size)
            return
        if _size(part) > file.size:
            part.unlink()
        with part.open("ab") as into:
            begun = into.tell()
            meter.add(begun)
            http_get(
                hf_hub_url(repo, file.name, revision=commit),
                into,
                resume_size=begun,
                headers=build_hf_headers(),
                expected_size=file.size,
                displayed_filename=file.name,
                tqdm_class=meter.bars(),
            )
        if _sha256(part) != file.sha256:
            part.unlink()
            raise ModelError(
                f"{file.name} of {repo} arrived damaged: its SHA-256 is not the one that the hub tells; "
                "start again to fetch it anew.",
                param="model",
            )
        part.replace(blob)


def _refuse_full_disk(repo: str, needed: int, cache: Path) -> None:
    free = shutil.disk_usage(cache).free
    if needed > free:
        raise ModelError(
            f"Fetching {repo} takes {needed / _GB:.1f} GB more, and {cache} has {free / _GB:.1f} GB free; make room,"
            " name a quantised model, or set --models-dir to a larger disk.",
            param="model",
        )


def _part(blobs: Path, file: File) -> Path:
    return blobs / f"{file.sha256}{PART}"


def _complete(blob: Path, file: File) -> bool:
    return _size(blob) == file.size


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Stopped(Exception):
    """Another file of the same download has failed."""


class _Meter:
    """Counts the bytes of a download over all its files, and reports each tenth of them where no bar is shown."""

    def __init__(self, repo: str, total: int, progress: Callable[[str], None]) -> None:
        self._repo, self._total, self._progress = repo, total, progress
        self._done = 0
        self._lock = threading.Lock()
        self._stopped = False

    def stop(self) -> None:
        """Make all that still counts fail."""
        self._stopped = True

    def add(self, count: int) -> None:
        """Count bytes, fewer than none if some have to come again."""
        if self._stopped:
            raise _Stopped
        with self._lock:
            before, self._done = self._done, self._done + count
            tenth = 10 * self._done // max(1, self._total)
            if tenth > 10 * before // max(1, self._total) and not sys.stderr.isatty():
                self._progress(f"Fetched {10 * tenth} % of {self._total / _GB:.2f} GB of {self._repo}")

    def bars(self) -> Any:
        """A class of progress bars, of the hub's client, that counts here as well; shown on a terminal only."""
        from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

        meter = self

        class Counting(tqdm):  # type: ignore[misc, unused-ignore]
            def update(self, n: float | None = 1) -> bool | None:
                meter.add(int(n or 0))
                shown: bool | None = super().update(n)
                return shown

        return Counting


def no_bars() -> Any:
    """A class of progress bars, of the hub's client, that are never shown: what is small needs none."""
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    class Hidden(tqdm):  # type: ignore[misc, unused-ignore]
        def __init__(self, *values: Any, **options: Any) -> None:
            super().__init__(*values, **options | {"disable": True})  # type: ignore[no-untyped-call, unused-ignore]

    return Hidden
