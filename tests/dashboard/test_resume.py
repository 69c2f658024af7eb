"""The page lives through a restart of the server and goes on after the last event that it saw."""

from __future__ import annotations

import re
import socket
from itertools import pairwise
from pathlib import Path

from playwright.async_api import Browser, expect

from tests.dashboard.browser import Api, candles, dashboard
from tests.dashboard.test_live import TREND, live
from tests.servers import FAST, Server

SECONDS = 60.0


def start(port: int, data_dir: Path) -> Server:
    """A server at that port."""
    server = Server((*FAST, "--port", str(port), "--data-dir", str(data_dir)), {})
    server.wait_ready(SECONDS)
    return server


async def test_a_restart_is_lived_through(browser: Browser, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = start(port, tmp_path)
    try:
        api = Api(server.url)
        api.create("market", TREND, type="ohlcv")
        data = candles(12)
        for candle in data[:4]:
            api.push("market", candle)
        async with dashboard(browser, server.url) as page:
            await live(page)
            assert server.stop() == 0
            await expect(page.locator("#link")).to_have_text("Reconnecting")
            await expect(page.locator("#engine")).to_have_text("not reachable")
            await expect(page.locator(".query .value")).to_be_visible()
            api.close()

            server = start(port, tmp_path)
            api = Api(server.url)
            # Whether the page is back by now or not, it sees all of this.
            for candle in data[4:]:
                api.push("market", candle)
            await live(page)
            await expect(page.locator("#link")).to_have_attribute("data-resumed", "true")
            version = str(api("GET", "/v1/sessions/market")["data_version"])
            await expect(page.locator(".query .version")).to_have_text(version)
            await expect(page.locator("#chart")).to_have_attribute("aria-label", re.compile("newest 12 entries"))
            past = api("GET", "/v1/sessions/market/flash/1/history")["data"]
            values = [one["value"] for one in past]
            changes = [new for old, new in pairwise(values) if old != new]
            assert changes
            await expect(page.locator("#changes td:nth-child(5)")).to_have_text(changes[::-1])
        api.close()
    finally:
        assert server.stop() == 0
