"""A server with a key: the page asks for it, keeps it in memory, and is told when it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from tests.dashboard.browser import Api, dashboard
from tests.dashboard.test_live import live
from tests.servers import FAST, serving

KEY = "a-key-of-ours"


async def give(page: Page, key: str) -> None:
    """Type a key into the dialog."""
    await page.locator("#key input").fill(key)
    await page.locator("#key").get_by_role("button", name="Use the key").click()


@pytest.mark.parametrize("wrong", ["another", "schlüssel"])
async def test_the_key_opens_and_no_other(browser: Browser, tmp_path: Path, wrong: str) -> None:
    with serving(FAST, tmp_path, "--api-key", KEY) as server:
        api = Api(server.url, KEY)
        api.create("s", "Well?")
        async with dashboard(browser, server.url) as page:
            dialog = page.locator("#key")
            await expect(dialog).to_be_visible()
            await expect(page.locator("#link")).to_have_text("Key needed")
            await give(page, wrong)
            await expect(dialog.locator("output")).not_to_be_empty()
            await expect(dialog).to_be_visible()
            # It can be put off, and is not asked for again and again.
            await page.keyboard.press("Escape")
            await page.wait_for_timeout(2500)
            await expect(dialog).to_be_hidden()
            await page.get_by_role("button", name="Enter the key").click()
            await give(page, KEY)
            await expect(dialog).to_be_hidden()
            await live(page)
            api.push("s", "a line")
            await expect(page.locator(".freshness")).to_have_text("fresh")
            # Nothing is kept beyond the page.
            kept = "() => JSON.stringify([localStorage, sessionStorage, document.cookie, location.href])"
            assert KEY not in await page.evaluate(kept)
            await page.reload()
            await expect(dialog).to_be_visible()
        api.close()


async def test_a_key_that_is_withdrawn_is_asked_for_again(browser: Browser, tmp_path: Path) -> None:
    with serving(FAST, tmp_path, "--api-key", KEY) as server:
        api = Api(server.url, KEY)
        api.create("s", "Well?")
        async with dashboard(browser, server.url) as page:
            await give(page, KEY)
            await live(page)
            await page.get_by_role("button", name="API key").click()
            await give(page, "stale")
            await expect(page.locator("#key output")).not_to_be_empty()
            await give(page, KEY)
            await live(page)
            api.push("s", "a line")
            await expect(page.locator(".freshness")).to_have_text("fresh")
        api.close()
