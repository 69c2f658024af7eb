"""Logging: one handler, text for people or JSON for collectors."""

from __future__ import annotations

import logging
import os
import sys
from typing import Literal

from aiohttp.http_exceptions import HttpProcessingError
from pythonjsonlogger.json import JsonFormatter

# Libraries that report at INFO what only matters when debugging: one line per request, or per engine step.
_CHATTY = ("transformers", "huggingface_hub", "httpx", "httpx2", "aiohttp.access", "aiohttp.server", "asyncio")


def setup_logging(log_format: Literal["text", "json"], log_level: str) -> None:
    """Send all logging to standard error.

    Args:
        log_format: one line of text, or one JSON object, per record.
        log_level: least severity; ``debug`` also shows what libraries say, and one line per HTTP request.
    """
    # vLLM would install handlers of its own when it is imported.
    os.environ.setdefault("VLLM_CONFIGURE_LOGGING", "0")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_json() if log_format == "json" else _text())
    handler.addFilter(_is_ours)
    level = logging.getLevelNamesMapping()[log_level.upper()]
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(level if level <= logging.DEBUG else max(level, logging.WARNING))
    # Its warnings are about choices made for it here.
    logging.getLogger("vllm").setLevel(level if level <= logging.DEBUG else logging.ERROR)
    logging.captureWarnings(True)


def _is_ours(record: logging.LogRecord) -> bool:
    """Leave out the tracebacks of requests that are not HTTP at all: port scanners are no errors of this server."""
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


def _text() -> logging.Formatter:
    return logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")


def _json() -> logging.Formatter:
    return JsonFormatter(
        ["levelname", "name", "message"],
        rename_fields={"levelname": "level", "name": "logger"},
        timestamp=True,
    )
