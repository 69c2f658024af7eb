"""Log events: a made-up office's night, with an attack on its accounts. With Python's standard library alone."""

import argparse
import json
import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count, islice
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

URL = os.environ.get("ASKAHEAD_URL", "http://127.0.0.1:8080")
HEADERS = {"content-type": "application/json", "x-api-key": os.environ.get("ASKAHEAD_API_KEY", "")}
PAUSE = 0.5
# Source, category, severity (1 informational to 6 fatal) and the usual number in a minute.
QUIET = [("web-01", "http_404", 2, 9), ("mail-01", "spam_rejected", 1, 30), ("db-01", "slow_query", 3, 2)]
ATTACK = [("fw-01", "port_scan", 4, 80), ("vpn-01", "login_failed", 5, 140), ("ad-01", "account_locked", 5, 6)]

SESSION: dict[str, Any] = {
    "type": "event",
    "window": 1200,
    "flash": [
        {"query": "Which host is the next?", "choices": [f"The next host is {host}" for host, *_ in QUIET + ATTACK]},
        # Asked only while the window has something critical.
        {"query": "Is the office under attack?", "choices": ["no", "yes"], "when": "critical_events >= 2"},
    ],
}


def events() -> Iterator[dict[str, Any]]:
    """A minute of one source at a time: thirty quiet ones, fifteen under attack, and so on."""
    chance = random.Random(7)
    for minute in count():
        source, category, severity, usual = chance.choice(ATTACK if minute % 45 >= 30 else QUIET)
        yield {"src": source, "sev": severity, "cat": category, "cnt": round(usual * chance.uniform(0.5, 1.5))}


def call(method: str, path: str, body: Any = None) -> Any:
    data = json.dumps(body).encode() if body else None
    return urlopen(Request(URL + path, data, HEADERS, method=method), timeout=60)


def watch(session: str) -> None:
    with call("GET", f"/v1/sessions/{session}/events") as lines:
        for line in lines:
            if line.startswith(b"data: ") and (answer := json.loads(line[6:])).get("changed"):
                print(f"version {answer['data_version']}: {answer['query']} {answer['value']}", flush=True)


def main(seconds: float) -> None:
    with call("POST", "/v1/sessions", SESSION) as created:
        session = json.load(created)["id"]
    print(f"watch it at {URL}/dashboard#/{session}", flush=True)
    watcher = threading.Thread(target=watch, args=(session,), daemon=True)
    watcher.start()
    try:
        for event in islice(events(), round(seconds / PAUSE)):
            call("POST", f"/v1/sessions/{session}/push", {"data": [event]}).close()
            time.sleep(PAUSE)
    finally:
        call("DELETE", f"/v1/sessions/{session}").close()
        watcher.join(5)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    try:
        with suppress(KeyboardInterrupt):
            main(parser.parse_args().seconds)
    except URLError as error:
        sys.exit(f"{URL}: {error.reason}; start a server with `make serve`, or name another in ASKAHEAD_URL")
