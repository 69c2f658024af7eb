"""What happens on the server is seen on the page as it happens, and stays where it is."""

from __future__ import annotations

import json
import re

from playwright.async_api import Browser, Page, expect

from tests.dashboard.browser import PHONE, Api, candles, dashboard
from tests.servers import Server

TREND = {"query": "Is the price rising or falling?", "choices": ["rising", "falling"]}
# What moved though nobody touched anything; 0.1 is what Web Vitals call good, for a page that loads.
SHIFTS = """() => new Promise((resolve) => new PerformanceObserver((list) => resolve(
  list.getEntries().filter((one) => !one.hadRecentInput).reduce((sum, one) => sum + one.value, 0)
)).observe({ type: "layout-shift", buffered: true }) || setTimeout(() => resolve(0), 500))"""


async def live(page: Page) -> None:
    """Wait until the page is connected and complete."""
    await expect(page.locator("#link")).to_have_text("Live")
    await expect(page.locator("#session")).to_be_visible()


async def test_answers_change_live(browser: Browser, server: Server, api: Api) -> None:
    api.create("market", TREND, "What comes next?", type="ohlcv")
    async with dashboard(browser, server.url) as page:
        await live(page)
        await expect(page.locator("#session-id")).to_have_text("market")
        card = page.locator(".query").first
        await expect(card.locator(".value")).to_have_text("no answer yet")
        seen = set()
        for number, candle in enumerate(candles(12), 1):
            api.push("market", candle)
            told = api("GET", "/v1/sessions/market/flash/1")
            await expect(card.locator(".version")).to_have_text(str(number))
            await expect(card.locator(".value")).to_have_text(told["value"])
            await expect(card.locator(".confidence")).to_have_text(f"{told['confidence']:.2f} nats")
            await expect(card.locator(".freshness")).to_have_text("fresh")
            seen.add(told["value"])
        assert len(seen) == 2, "the answer has changed"
        await expect(card.locator(".age")).to_have_text(re.compile(r"^\d s$"))
        await expect(card.locator(".choices li")).to_have_count(2)
        # Strip and table show the changes; the last answer is the strip's end.
        past = api("GET", "/v1/sessions/market/flash/1/history")["data"]
        changes = sum(one["changed"] for one in past[1:])
        strip = page.locator("#strips .strip").first
        await expect(strip).to_have_attribute("aria-label", re.compile(rf"now {past[-1]['value']}, {changes} change"))
        await expect(strip.locator("[data-tone]").last).to_have_text(past[-1]["value"])
        await expect(page.locator("#changes tr").first).to_be_visible()


async def test_an_answer_that_is_not_of_the_newest_data_says_so(browser: Browser, server: Server, api: Api) -> None:
    api.create("s", {"query": "Now and then?", "every": 3})
    api.push("s", "one")
    async with dashboard(browser, server.url) as page:
        await live(page)
        freshness = page.locator(".freshness")
        await expect(freshness).to_have_text("fresh")
        api("POST", "/v1/sessions/s/push", {"data": "two"})
        await expect(freshness).to_have_text("1 behind")


async def test_incoming_candles_are_drawn(browser: Browser, server: Server, api: Api) -> None:
    api.create("market", type="ohlcv")
    told = candles(30)
    api.push("market", told[:29])
    async with dashboard(browser, server.url, "#/market") as page:
        await live(page)
        chart = page.locator("#chart")
        await expect(chart).to_have_attribute("aria-label", re.compile(r"^Candles of the newest 29 entries\."))
        before = await drawn(page)
        api.push("market", told[29])
        close = f"close {told[29]['c']:g}"
        await expect(chart).to_have_attribute("aria-label", re.compile(rf"newest 30 entries.*{re.escape(close)}"))
        await expect(page.locator("#readout")).to_contain_text(close)
        assert await drawn(page) != before
        await expect(page.locator("#entries tr").first).to_contain_text(f"{told[29]['h']:g}")
        await expect(page.locator("#stats")).to_contain_text("last close")
        # Another symbol has a chart of its own.
        api.push("market", {**told[0], "sym": "OTHER"})
        await expect(page.locator("#legend button")).to_have_text(["ACME", "OTHER"])
        await page.get_by_role("button", name="ACME").click()
        await expect(page.locator("#readout")).to_contain_text(close)
        await expect(page.get_by_role("button", name="ACME")).to_have_attribute("aria-pressed", "true")
        await chart.hover(position={"x": 90, "y": 100})
        await expect(page.locator("#readout")).not_to_contain_text(close)


async def drawn(page: Page) -> str:
    """The picture on the canvas."""
    picture: str = await page.locator("#chart canvas").evaluate("(canvas) => canvas.toDataURL()")
    return picture


async def test_other_entries_are_drawn_as_lines(browser: Browser, server: Server, api: Api) -> None:
    readings = [{"sid": sid, "val": 70 + number, "lo": 0, "hi": 99} for number in range(5) for sid in ("a", "b")]
    api.create("iot", type="iot")
    api.push("iot", readings)
    api.create("vitals", type="vitals")
    api.push("vitals", {"hr": 72, "bp_s": 120, "bp_d": 80, "spo2": 98, "temp": 36.8})
    own = {
        "schema": {"type": "object", "properties": {"cpu": {"type": "number"}, "host": {}}},
        "template": "{host} {cpu}",
    }
    api.create("own", type=own)
    api.push("own", [{"host": "a1", "cpu": 0.5}, {"host": "a1", "cpu": 0.75}])
    api.create("text")
    api.push("text", ["12:00 boiler 71.5 C", "12:01 boiler 83.25 C"])
    async with dashboard(browser, server.url, "#/iot") as page:
        for session_id, names, newest in (
            ("iot", ["a", "b"], "b 74"),
            ("vitals", ["hr", "bp_s", "bp_d", "spo2", "temp"], "temp 36.8"),
            ("own", [], "cpu 0.75"),
            ("text", [], "last number 83.25"),
        ):
            await page.locator("#sessions a", has_text=session_id).click()
            await expect(page.locator("#session-id")).to_have_text(session_id)
            await live(page)
            await expect(page.locator("#readout")).to_contain_text(newest)
            await expect(page.locator("#legend button")).to_have_text(names)
        await page.locator("#sessions a", has_text="iot").click()
        shown = page.get_by_role("button", name="b", exact=True)
        await expect(shown).to_have_attribute("aria-pressed", "true")
        before = await drawn(page)
        await shown.click()
        await expect(shown).to_have_attribute("aria-pressed", "false")
        assert await drawn(page) != before


async def test_the_server_is_described(browser: Browser, server: Server, api: Api) -> None:
    api.create("s")
    api.push("s", "a line")
    async with dashboard(browser, server.url) as page:
        await live(page)
        await expect(page.locator("#model")).to_have_text("fast")
        await expect(page.locator("#engine")).to_have_text("ready")
        await expect(page.locator("#kv")).to_have_text(re.compile(r"^(< )?\d+ %$"))
        await expect(page.locator("#queue")).to_have_text("0 / 0")
        await expect(page.locator("#total-sessions")).to_have_text("1")
        await expect(page.locator("#residency")).to_have_text("1 resident, 0 warm, 0 cold")
        await expect(page.locator("[data-fact=residency]")).to_have_text("resident")
        session = api("GET", "/v1/sessions/s")
        for name, field in (("version", "data_version"), ("tokens", "tokens"), ("kv", "kv_tokens")):
            await expect(page.locator(f"[data-fact={name}]")).to_have_text(f"{session[field]:,}")


async def test_sessions_come_and_go(browser: Browser, server: Server, api: Api) -> None:
    async with dashboard(browser, server.url) as page:
        await expect(page.locator("#no-sessions")).to_be_visible()
        await expect(page.locator("#none")).to_have_text("Choose a session, or create one.")
        api.create("one")
        api.create("two")
        await expect(page.locator("#sessions .name")).to_have_text(["one", "two"])
        await page.locator("#sessions a", has_text="two").click()
        await live(page)
        assert page.url.endswith("#/two")
        api("DELETE", "/v1/sessions/two")
        await expect(page.locator("#notice")).to_have_text("Session two was deleted.")
        await expect(page.locator("#sessions .name")).to_have_text(["one"])
        await page.goto(f"{server.url}/dashboard#/nowhere")
        await expect(page.locator("#notice")).to_contain_text("nowhere")


async def test_only_the_session_that_is_looked_at_is_kept_from_expiring(
    browser: Browser, server: Server, api: Api
) -> None:
    api.create("seen")
    api.create("other")
    used = api("GET", "/v1/sessions/other")["last_used"]
    async with dashboard(browser, server.url, "#/seen") as page:
        await live(page)
        await page.wait_for_timeout(2500)
        listed = {session["id"]: session for session in api("GET", "/v1/sessions")["data"]}
    assert listed["other"]["last_used"] <= used + 1
    assert listed["seen"]["last_used"] > used


async def test_sessions_of_the_old_generation_are_shown_too(browser: Browser, server: Server, api: Api) -> None:
    query = {"query": "Up or down?", "max_tokens": 4}
    old = api("POST", "/v1/sessions/init", {"type": "ohlcv", "flash": [query]})["session_id"]
    api("POST", f"/v1/sessions/{old}/stream/push", {"data": candles(3)})
    async with dashboard(browser, server.url) as page:
        await live(page)
        await expect(page.locator(".query h3")).to_have_text("Up or down?")
        await expect(page.locator(".query .freshness")).to_have_text("fresh")
        await page.locator("#question").fill("What now?")
        await page.locator("#ask-button").click()
        await expect(page.locator("#answered")).to_contain_text("from the model")
        await expect(page.locator("#answer")).not_to_be_empty()


async def test_nothing_that_is_pushed_becomes_markup(browser: Browser, server: Server, api: Api) -> None:
    hostile = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    api.create("hostile", f"{hostile}?", {"query": "Which?", "choices": [hostile, "<b>bold</b>"]})
    api.push("hostile", [hostile, "</td><h1>out</h1>"])
    async with dashboard(browser, server.url) as page:
        page.on("dialog", lambda dialog: dialog.dismiss())
        await live(page)
        await expect(page.locator(".query h3").first).to_have_text(f"{hostile}?")
        await expect(page.locator("#entries tr").last).to_contain_text(hostile)
        assert await page.locator("img, b, table h1, #session script").count() == 0


async def test_nothing_jumps(browser: Browser, server: Server, api: Api) -> None:
    api.create("market", TREND, "What comes next?", type="ohlcv")
    api.push("market", candles(20))
    for looks in ({}, PHONE):
        async with dashboard(browser, server.url, "#/market", **looks) as page:
            await live(page)
            await expect(page.locator("#strips .strip")).to_have_count(2)
            before = await page.evaluate(SHIFTS)
            assert before < 0.1, "while it loads"
            for candle in candles(6, begin=120.0, seed=8):
                api.push("market", candle)
            version = str(api("GET", "/v1/sessions/market")["data_version"])
            await expect(page.locator(".query .version").first).to_have_text(version)
            assert await page.evaluate(SHIFTS) - before < 0.01, "while data comes in"


async def test_many_candles_at_once_do_not_overwhelm_it(browser: Browser, server: Server, api: Api) -> None:
    api.create("busy", "Well?", type="ohlcv", window=2000)
    async with dashboard(browser, server.url) as page:
        await live(page)
        for candle in candles(150):
            api("POST", "/v1/sessions/busy/push", {"data": candle})
        newest = json.dumps(candles(150)[-1]["c"])
        await expect(page.locator("#readout")).to_contain_text(f"close {float(newest):g}")
        await expect(page.locator(".freshness")).to_have_text("fresh")
        await expect(page.locator("#link")).to_have_text("Live")
