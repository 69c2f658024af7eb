"""A headless Chromium for tests, a page of the dashboard in it, and what it complained of."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from playwright.async_api import Browser, ConsoleMessage, Page, Request, async_playwright, expect

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
SCREENSHOTS = Path(os.environ.get("DASHBOARD_SCREENSHOTS", "build/screenshots"))
SECONDS = 20_000.0
"""Bound of every wait, in milliseconds; far above what one takes."""
expect.set_options(timeout=SECONDS)

DESK: Mapping[str, Any] = {"viewport": {"width": 1360, "height": 900}}
PHONE: Mapping[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}

_ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# A refusal is no fault of the page, and is what some tests are about.
_EXPECTED = "Failed to load resource"


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """The browser, with a profile of its own. Raises FileNotFoundError where there is none."""
    if not os.path.exists(CHROMIUM):
        raise FileNotFoundError(
            f"{CHROMIUM} is not there: apt-get install chromium, or name another Chromium in the environment's CHROMIUM"
        )
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def dashboard(browser: Browser, url: str, path: str = "", **options: Any) -> AsyncIterator[Page]:
    """The dashboard of the server at ``url``, in a window of its own.

    Fails if the page has errors, breaks its own policy, or asks anybody else for anything.
    """
    complaints: list[str] = []

    def logged(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(_EXPECTED):
            complaints.append(message.text)

    def asked(request: Request) -> None:
        if not request.url.startswith((f"{url}/", "data:")):
            complaints.append(f"asked for {request.url}")

    async with await browser.new_context(**{**DESK, **options}) as context:
        context.set_default_timeout(SECONDS)
        page = await context.new_page()
        page.on("console", logged)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", asked)
        await page.goto(f"{url}/dashboard{path}")
        yield page
    assert not complaints


def candles(number: int, *, begin: float = 100.0, seed: int = 7) -> list[dict[str, Any]]:
    """A walk of prices, a minute each."""
    draw = random.Random(seed)
    found, close = [], begin
    for minute in range(number):
        opened, close = close, round(close + draw.gauss(0, 0.8), 2)
        high, low = (
            round(edge + sign * draw.random(), 2) for edge, sign in ((max(opened, close), 1), (min(opened, close), -1))
        )
        stamp = 1_790_000_000 + 60 * minute
        found.append(
            {
                "o": opened,
                "h": high,
                "l": low,
                "c": close,
                "v": draw.randint(200, 2000),
                "sym": "ACME",
                "timestamp": stamp,
            }
        )
    return found


class Api:
    """What tests do beside the page.

    Args:
        url: of the server.
        key: where it needs one.
    """

    def __init__(self, url: str, key: str = "") -> None:
        self._http = httpx.Client(base_url=url, headers={"x-api-key": key} if key else {}, timeout=30)

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        """Decoded JSON of a request that must succeed."""
        answer = self._http.request(method, path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def create(self, session_id: str, *queries: str | dict[str, Any], **options: Any) -> None:
        """A session with these standing questions."""
        flash = [{"query": query} if isinstance(query, str) else query for query in queries]
        self("POST", "/v1/sessions", {"id": session_id, "flash": flash, **options})

    def push(self, session_id: str, data: Any) -> None:
        """Push, and wait until every answer is fresh."""
        total = self("POST", f"/v1/sessions/{session_id}/push", {"data": data})["total_pushed"]
        self("GET", f"/v1/sessions/{session_id}/flash?wait=10&after={total}")

    def close(self) -> None:
        self._http.close()
