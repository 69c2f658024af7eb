"""GGUF files, converted once into the format that the engine loads."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from streams.errors import ModelError
from streams.models import recurrent

MAGIC = b"GGUF"
VERSION = 2
"""Of the conversion. Raised when it makes something else of a file than before, so that kept results are not used."""

PARTIAL = ".partial-"
"""Prefix of directories that are being written. Whoever holds the lock may delete all of them."""


def convert(source: Path, identity: str, models_dir: Path, progress: Callable[[str], None]) -> Path:
    """Convert a GGUF file to safetensors with tokenizer and chat template, unless that was done before.

    Weights keep their type, and packed ones become float16.

    Args:
        source: the GGUF file; of a model in parts the first, with the others beside it.
        identity: what tells this file from others of the same name, and from its own earlier contents.
        models_dir: created if missing; the result is a directory in it.
        progress: called with one sentence before a conversion.

    Returns:
        A directory in Hugging Face format; the file itself if its model is recurrent, which needs no conversion.

    Raises:
        ModelError: the file is broken or of an architecture that cannot be converted, or there is no room for it.
    """
    try:
        if recurrent.architecture(source) in recurrent.RECURRENT:
            return source
        check_magic(source)
    except OSError as error:
        raise _failed(source, error) from error
    return once(source, identity, models_dir, progress)


def identity(files: Iterable[Path]) -> str:
    """What tells these files from others, and from their own earlier contents."""
    found = (file.resolve() for file in files)
    return " ".join(f"{file} {(stat := file.stat()).st_size} {stat.st_mtime_ns}" for file in found)


def once(source: Path, identity: str, models_dir: Path, progress: Callable[[str], None]) -> Path:
    """Run the converter on a file or directory, unless that was done before.

    A conversion appears under its name complete or not at all. Processes that share ``models_dir`` take turns, and
    remove what an interrupted one left behind.

    Args:
        source: what is converted.
        identity, models_dir, progress: see :func:`convert`.

    Returns:
        The directory with what the converter wrote.

    Raises:
        ModelError: it cannot be converted.
    """
    digest = hashlib.sha256(f"{VERSION} {identity}".encode()).hexdigest()
    target = models_dir / f"{source.stem}-{digest[:12]}"
    if target.is_dir():
        return target
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        with _locked(models_dir):
            for leftover in models_dir.glob(f"{PARTIAL}*"):
                shutil.rmtree(leftover)
            if not target.is_dir():
                progress(f"Converting {source.name}, once; this takes half a minute for a small model")
                _convert_into(source, target)
    except OSError as error:
        raise _failed(source, error) from error
    return target


def _failed(source: Path, error: OSError) -> ModelError:
    return ModelError(f"{source} cannot be converted: {error}.", param="model")


def check_magic(source: Path) -> None:
    """Refuse what does not begin as a GGUF file does.

    Raises:
        ModelError: it does not.
        OSError: it cannot be read.
    """
    with source.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise ModelError(f"{source} is not a GGUF file, whatever its name says; get it again.", param="model")


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Exclusive among processes, and freed by the kernel when its owner dies."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _convert_into(source: Path, target: Path) -> None:
    partial = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=target.parent))
    try:
        _run_converter(source, partial)
        for path in partial.iterdir():
            _fsync(path)
        _fsync(partial)
        partial.rename(target)
        _fsync(target.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _run_converter(source: Path, into: Path) -> None:
    """Run ``convert.py`` in a process of its own.

    The server's process stays free of a torch runtime that was set up before the engine chose threads and affinity,
    and a file that crashes the parser, or takes all memory, fails here and not there.
    """
    script = Path(__file__).with_name("convert.py")
    # A progress bar is for a person; in a log it is noise.
    quiet = {} if sys.stderr.isatty() else {"TQDM_DISABLE": "1"}
    with subprocess.Popen(  # noqa: S603 - a list of our own making, and no shell
        [sys.executable, "-P", str(script), str(source), str(into)],
        stdin=subprocess.PIPE,  # never written to: it closes when this process dies, and the converter exits
        stdout=subprocess.PIPE,
        env=os.environ | quiet,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C is for this process to handle
    ) as converter:
        assert converter.stdout is not None  # noqa: S101
        try:
            reason = converter.stdout.read().strip()
        except BaseException:
            converter.kill()
            raise
    if converter.returncode < 0:
        reason = f"the converter was killed by signal {-converter.returncode}, perhaps for want of memory"
    if converter.returncode != 0:
        raise ModelError(
            f"{source} cannot be converted: {reason or 'the converter failed, see the log'}; "
            f"get it again, or name a directory in Hugging Face format.",
            param="model",
        )


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
