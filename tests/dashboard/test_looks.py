"""How the page looks: without barriers that axe-core calls serious, nothing beside the screen, and as pictures."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, expect

from tests.dashboard.browser import DESK, PHONE, SCREENSHOTS, Api, candles, dashboard
from tests.dashboard.test_live import TREND, live
from tests.servers import Server

LOOKS: dict[str, Mapping[str, Any]] = {
    "light": {**DESK, "color_scheme": "light"},
    "dark": {**DESK, "color_scheme": "dark"},
    "phone": {**PHONE, "color_scheme": "light"},
    "phone-dark": {**PHONE, "color_scheme": "dark"},
}
_GRAVE = ("serious", "critical")


@pytest.fixture
def full(api: Api) -> Api:
    """A server with something of everything on it."""
    questions = [
        TREND,
        "What is the outlook for the next hour?",
        {"query": "Is volume unusual?", "choices": ["yes", "no"]},
    ]
    api.create("market", *questions, type="ohlcv")
    readings = [{"sid": f"temp-0{number % 2}", "val": 70 + number % 7, "lo": 60, "hi": 85} for number in range(24)]
    api.create("boiler", "Is any reading above its range?", type="iot")
    api.push("boiler", readings)
    api.create("notes")
    api.push("notes", ["shift begins", "valve 3 opened"])
    data = candles(40)
    api.push("market", data[:24])
    for candle in data[24:]:
        api.push("market", candle)
    return api


async def barriers(page: Page) -> list[str]:
    """What axe-core finds that keeps people out."""
    found = (await Axe().run(page)).response["violations"]
    return [
        f"{one['id']} ({one['impact']}): {node['html'][:200]} {node.get('failureSummary', '')}"
        for one in found
        for node in one["nodes"]
        if one["impact"] in _GRAVE
    ]


@pytest.mark.parametrize("look", LOOKS)
async def test_it_is_readable_and_has_no_barriers(browser: Browser, server: Server, full: Api, look: str) -> None:
    async with dashboard(browser, server.url, "#/market", **LOOKS[look]) as page:
        await live(page)
        await expect(page.locator("#chart")).to_have_attribute("aria-label", re.compile("newest 40 entries"))
        await expect(page.locator(".query .freshness")).to_have_text(["fresh"] * 3)
        await page.locator("#question").fill("What happened in the last minutes?")
        await page.locator("#ask-button").click()
        await expect(page.locator("#answered")).to_contain_text("from the model")
        await page.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0); }")
        await asyncio.to_thread(SCREENSHOTS.mkdir, parents=True, exist_ok=True)
        await page.screenshot(path=SCREENSHOTS / f"{look}.png", full_page=True)
        assert await barriers(page) == []
        width = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert await page.evaluate(width) == 0, "nothing is beside the screen"
        for name in ("key", "create", "query"):
            await page.locator(f"#{name}-button").click()
            await expect(page.locator(f"#{name}")).to_be_visible()
            assert await barriers(page) == []
            await page.screenshot(path=SCREENSHOTS / f"{look}-{name}.png")
            await page.keyboard.press("Escape")
        for session_id in ("boiler", "notes"):
            await page.locator("#sessions a", has_text=session_id).click()
            await expect(page.locator("#session-id")).to_have_text(session_id)
            await live(page)
            assert await barriers(page) == []
            await page.screenshot(path=SCREENSHOTS / f"{look}-{session_id}.png", full_page=True)


async def test_colours_follow_the_system(browser: Browser, server: Server, full: Api) -> None:
    paper = "() => getComputedStyle(document.body).backgroundColor"
    picture = "(canvas) => canvas.toDataURL()"
    async with dashboard(browser, server.url, "#/market", **LOOKS["light"]) as page:
        await live(page)
        canvas = page.locator("#chart canvas")
        before = await page.evaluate(paper), await canvas.evaluate(picture)
        await page.emulate_media(color_scheme="dark")
        await page.wait_for_timeout(300)
        after = await page.evaluate(paper), await canvas.evaluate(picture)
        assert all(light != dark for light, dark in zip(before, after, strict=True))


async def test_nothing_moves_for_who_wants_that(browser: Browser, server: Server, full: Api) -> None:
    async with dashboard(browser, server.url, "#/market", reduced_motion="reduce") as page:
        await live(page)
        moving = "() => document.getAnimations({ subtree: true }).length"
        full.push("market", candles(1))
        assert await page.evaluate(moving) == 0
