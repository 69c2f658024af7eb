"""The address that ``askahead demo`` prints, and opens if it is told to, shows its answers as they change."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from pathlib import Path

from playwright.async_api import Browser, expect

from tests.dashboard.browser import SCREENSHOTS, dashboard
from tests.dashboard.test_live import live
from tests.servers import FAST

_PROGRAM = """
import asyncio, json, sys
from pathlib import Path
from service.cli.demo.player import run
sys.exit(asyncio.run(run(json.loads(sys.argv[1]), data_dir=Path(sys.argv[2]), rate=2, seconds=None, browse=True)))
"""


async def test_the_address_shows_answers_as_they_change(browser: Browser, tmp_path: Path) -> None:
    # What Python starts as the browser notes where it was sent.
    sent, note = tmp_path / "sent", tmp_path / "browser"
    note.write_text(f'#!/bin/sh\necho "$1" > {sent}.part && mv {sent}.part {sent}\n')
    note.chmod(0o755)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _PROGRAM,
        json.dumps(FAST),
        str(tmp_path / "data"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"TMPDIR": str(tmp_path), "BROWSER": f"{note} %s"},
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(120):
            while not (told := re.match(rb"watch it live: ((.*)/dashboard(#/\w+))\n", await process.stdout.readline())):
                assert process.returncode is None
            while not sent.exists():
                await asyncio.sleep(0.05)
        address, url, path = (part.decode() for part in told.groups())
        assert sent.read_text().strip() == address
        async with dashboard(browser, url, path) as page:
            await live(page)
            version = page.locator(".query .version").first
            await expect(version).to_have_text(re.compile(r"\d"))
            before = int(await version.inner_text())
            await expect(version).not_to_have_text(str(before))
            assert int(await version.inner_text()) > before
            await asyncio.to_thread(SCREENSHOTS.mkdir, parents=True, exist_ok=True)
            await page.screenshot(path=SCREENSHOTS / "demo.png", full_page=True)
        process.send_signal(signal.SIGINT)
        _, errors = await asyncio.wait_for(process.communicate(), 60)
        assert (process.returncode, errors) == (0, b"")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
