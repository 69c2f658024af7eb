"""``python -m tests.dashboard.pictures``: the pictures in docs/images, of the default model over the examples' data.

The same data in the same order; only the ages and the machine's figures differ from run to run.
"""

from __future__ import annotations

import asyncio
import runpy
import sys
import tempfile
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.async_api import Browser, expect

from tests.dashboard.browser import DESK, PHONE, Api, chromium, dashboard
from tests.dashboard.test_live import live
from tests.servers import REAL, ROOT, serving

IMAGES = ROOT / "docs" / "images"
_TALL = {**DESK, "viewport": {"width": 1360, "height": 1140}}
LOOKS: dict[str, Mapping[str, Any]] = {
    "dashboard-light": {**_TALL, "color_scheme": "light"},
    "dashboard-dark": {**_TALL, "color_scheme": "dark"},
    "dashboard-phone": {**PHONE, "color_scheme": "light"},
}
_OTHERS = {"sensor_telemetry": "readings", "patient_vitals": "measurements", "log_events": "events"}
# What so small a model can tell.
_QUESTIONS = [
    {"query": query, "choices": [f"The {what} {value}" for value in values]}
    for query, what, values in (
        ("What is the next close?", "next close is", ("1.069", "1.070", "1.071", "1.072")),
        ("What is the price now?", "price is", ("1.06", "1.07", "1.08", "1.09")),
        ("Is the volume below or above 2000?", "volume is", ("below 2000", "above 2000")),
    )
]
# Up to a Friday's evening: prices jumped over the weekend.
_HISTORY, _LIVE = 24, 32
_COLOURS = 128


def _example(name: str) -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "examples" / f"{name}.py"))


def fill(api: Api) -> None:
    """Sessions of every kind, the market's last, as if its candles had come one by one."""
    for name, feed in _OTHERS.items():
        example = _example(name)
        session_id = name.replace("_", "-")
        api("POST", "/v1/sessions", {**example["SESSION"], "id": session_id})
        for entry in islice(example[feed](), 8):
            api("POST", f"/v1/sessions/{session_id}/push", {"data": entry if isinstance(entry, tuple) else [entry]})
    candles: Iterator[dict[str, Any]] = _example("market_ticks")["candles"]()
    api.create("market-ticks", *_QUESTIONS, type="ohlcv")
    api.push("market-ticks", list(islice(candles, _HISTORY)))
    for candle in islice(candles, _LIVE):
        api.push("market-ticks", [candle])


async def take(browser: Browser, url: str, name: str, directory: Path) -> None:
    """One picture, in few colours: a page has no more, and the file is a fraction."""
    path = directory / f"{name}.png"
    async with dashboard(browser, url, "#/market-ticks", **LOOKS[name]) as page:
        await live(page)
        await expect(page.locator(".query .freshness")).to_have_text(["fresh"] * len(_QUESTIONS))
        await expect(page.locator("#chart canvas")).to_be_visible()
        if "is_mobile" in LOOKS[name]:
            # Below the page's head, which stays.
            top = "(one) => scrollTo(0, one.getBoundingClientRect().top + scrollY - 72)"
            await page.get_by_role("heading", name="Standing questions").evaluate(top)
        await page.screenshot(path=path, animations="disabled")
    with Image.open(path) as picture:
        few = picture.convert("RGB").quantize(_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


async def main() -> None:
    """Take all of them."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory, serving(REAL, Path(directory)) as server:
        api = Api(server.url)
        await asyncio.to_thread(fill, api)
        async with chromium() as browser:
            for name in LOOKS:
                await take(browser, server.url, name, IMAGES)
        api.close()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
