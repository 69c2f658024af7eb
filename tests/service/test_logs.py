from __future__ import annotations

import json
import subprocess
import sys

SCRIPT = """
import logging, warnings
from aiohttp.http_exceptions import BadHttpMessage
from service.logs import setup_logging
setup_logging({format!r}, {level!r})
log = logging.getLogger("service.x")
log.debug("quiet")
log.info("hello %s", "there", extra={{"request_id": "req_1"}})
logging.getLogger("httpx").info("a request")
logging.getLogger("vllm.engine").info("a step")
logging.getLogger("vllm.engine").warning("a remark")
logging.getLogger("vllm.engine").error("a problem")
logging.getLogger("aiohttp.server").error("Error handling request", exc_info=BadHttpMessage("not HTTP"))
warnings.warn("beware")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("failed")
"""


def _lines(log_format: str, level: str) -> str:
    script = SCRIPT.format(format=log_format, level=level)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == ""
    return done.stderr


def test_text_is_for_people() -> None:
    text = _lines("text", "info")
    assert "INFO    service.x: hello there" in text
    assert "ZeroDivisionError" in text
    assert "a problem" in text
    assert "beware" in text
    for hidden in ("quiet", "a request", "a step", "a remark", "not HTTP"):
        assert hidden not in text


def test_debug_shows_what_libraries_say() -> None:
    text = _lines("text", "debug")
    for shown in ("quiet", "a request", "a step"):
        assert shown in text


def test_json_is_one_object_a_line() -> None:
    records = [json.loads(line) for line in _lines("json", "info").splitlines()]
    hello = next(record for record in records if record["message"] == "hello there")
    assert hello["level"] == "INFO"
    assert hello["logger"] == "service.x"
    assert hello["request_id"] == "req_1"
    assert hello["timestamp"]
    failed = next(record for record in records if record["message"] == "failed")
    assert "ZeroDivisionError" in failed["exc_info"]
