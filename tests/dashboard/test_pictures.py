"""The pictures in docs/images are there and small, and what takes them still can."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from PIL import Image
from playwright.async_api import Browser

from tests.dashboard.browser import Api
from tests.dashboard.pictures import IMAGES, LOOKS, fill, take
from tests.servers import FAST, serving

_BYTES = 200_000


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


@pytest.mark.parametrize("name", LOOKS)
def test_they_are_there_and_small(name: str) -> None:
    path = IMAGES / f"{name}.png"
    viewport, scale = LOOKS[name]["viewport"], LOOKS[name].get("device_scale_factor", 1)
    assert size(path) == (viewport["width"] * scale, viewport["height"] * scale)
    assert path.stat().st_size < _BYTES


async def test_they_can_be_taken(browser: Browser, tmp_path: Path) -> None:
    # A byte is a token there.
    with serving(FAST, tmp_path / "data", "--context", "16384") as server:
        api = Api(server.url)
        await asyncio.to_thread(fill, api)
        await take(browser, server.url, "dashboard-phone", tmp_path)
        api.close()
    assert size(tmp_path / "dashboard-phone.png") == size(IMAGES / "dashboard-phone.png")
