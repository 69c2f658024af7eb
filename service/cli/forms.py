"""How data is written, in files and pipes; small files of JSON that options name."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any

import orjson

from service.cli.failures import BadUsage


class Format(StrEnum):
    """How a file or a pipe is written."""

    LINES = "lines"
    CSV = "csv"
    JSONL = "jsonl"

    @classmethod
    def of(cls, path: Path) -> Format:
        """Told from a file's name."""
        return {".csv": cls.CSV, ".jsonl": cls.JSONL, ".ndjson": cls.JSONL}.get(path.suffix.lower(), cls.LINES)


def json_file(path: Path, flag: str) -> Any:
    """What is in a file that an option names.

    Raises:
        BadUsage: it cannot be read, or is not JSON.
    """
    try:
        return orjson.loads(path.read_bytes())
    except OSError as error:
        raise BadUsage(f"{flag}: cannot read {path}: {error.strerror}") from None
    except orjson.JSONDecodeError as error:
        raise BadUsage(f"{flag}: {path} is not JSON: {error}") from None
