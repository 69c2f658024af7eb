"""Logging: one handler, text for people or JSON for collectors."""

from __future__ import annotations

import logging
import os
import sys
from typing import Literal

from aiohttp.http_exceptions import HttpProcessingError
from pythonjsonlogger.json import JsonFormatter

from streams.context import REQUEST, SESSION
from streams.tracing import trace_id

CONTEXT = ("request_id", "session_id", "trace_id")
"""What a line may belong to."""

# Libraries that report at INFO what only matters when debugging: one line per request, or per engine step.
_CHATTY = ("transformers", "huggingface_hub", "httpx", "httpx2", "aiohttp.server", "asyncio")


def setup_logging(log_format: Literal["text", "json"], log_level: str) -> None:
    """Send all logging to standard error.

    Args:
        log_format: one line of text, or one JSON object, per record.
        log_level: least severity; ``debug`` also shows what libraries say, and one line per HTTP request.

    Lines name the request, the session and the trace that they belong to, under the names of :data:`CONTEXT`.
    """
    # vLLM would install handlers of its own when it is imported.
    os.environ.setdefault("VLLM_CONFIGURE_LOGGING", "0")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_json() if log_format == "json" else _text())
    handler.addFilter(_is_ours)
    handler.addFilter(placed)
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


def placed(record: logging.LogRecord) -> bool:
    """Give a record what it belongs to, as far as there is such a thing."""
    for name, value in zip(CONTEXT, (REQUEST.get(), SESSION.get(), trace_id()), strict=True):
        if value:
            setattr(record, name, value)
    return True


class _Text(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        told = " ".join(f"{name}={getattr(record, name)}" for name in CONTEXT if hasattr(record, name))
        return f"{line} [{told}]" if told else line


def _text() -> logging.Formatter:
    return _Text("%(asctime)s %(levelname)-7s %(name)s: %(message)s")


def _json() -> logging.Formatter:
    return JsonFormatter(
        ["levelname", "name", "message"],
        rename_fields={"levelname": "level", "name": "logger"},
        timestamp=True,
    )
