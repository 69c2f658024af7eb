"""What can be done on the page, with a pointer or with the keyboard alone."""

from __future__ import annotations

import json
import re

from playwright.async_api import Browser, Page, expect

from tests.dashboard.browser import Api, candles, dashboard
from tests.dashboard.test_live import live
from tests.servers import Server


async def create(page: Page, **fields: str) -> None:
    """Fill in the form for a new session, and send it."""
    await page.get_by_role("button", name="New session").click()
    form = page.locator("#create")
    for label, value in fields.items():
        field = form.get_by_label(label.replace("_", " "), exact=False).first
        await (field.select_option(value) if label == "Entries" else field.fill(value))
    await form.get_by_role("button", name="Create").click()


async def test_from_nothing_to_an_answer(browser: Browser, server: Server, api: Api) -> None:
    async with dashboard(browser, server.url) as page:
        await create(
            page,
            Name="made-here",
            Entries="ohlcv",
            System_prompt="You read candles.",
            Window="2000",
            First_question="Rising?",
            Its_choices="yes, no",
        )
        await live(page)
        await expect(page.locator("#session-id")).to_have_text("made-here")
        session = api("GET", "/v1/sessions/made-here")
        assert (session["type"], session["window"]) == ("ohlcv", 2000)

        # The example is ready to be pushed, and each goes on from the one before.
        entry = page.locator("#entry")
        first = json.loads(await entry.input_value())
        await page.get_by_role("button", name="Push", exact=True).click()
        await expect(page.locator("#pushed")).to_contain_text("accepted as entry 1")
        second = json.loads(await entry.input_value())
        assert (second["o"], second["timestamp"]) == (first["c"], first["timestamp"] + 60)
        await expect(page.locator(".query .version")).to_have_text("1")
        await expect(page.locator("#readout")).to_contain_text("close")

        await page.get_by_role("button", name="New question").click()
        await page.locator("#query").get_by_label("Question").fill("What comes next?")
        await page.locator("#query").get_by_role("button", name="Register").click()
        await expect(page.locator(".query h3")).to_have_text(["Rising?", "What comes next?"])
        await expect(page.locator(".query .freshness")).to_have_text(["fresh", "fresh"])

        await page.get_by_role("button", name="Delete Rising?").click()
        await page.locator("#confirm").get_by_role("button", name="Delete").click()
        await expect(page.locator(".query h3")).to_have_text(["What comes next?"])

        await page.get_by_role("button", name="Delete session").click()
        await page.locator("#confirm").get_by_role("button", name="Cancel").click()
        await expect(page.locator("#session-id")).to_be_visible()
        await page.get_by_role("button", name="Delete session").click()
        await page.locator("#confirm").get_by_role("button", name="Delete").click()
        await expect(page.locator("#notice")).to_have_text("Session made-here was deleted.")
    assert api("GET", "/v1/sessions")["data"] == []


async def test_questions_are_answered(browser: Browser, server: Server, api: Api) -> None:
    api.create("s", "Known already?")
    api.push("s", "a line")
    async with dashboard(browser, server.url) as page:
        await live(page)
        for question, source in (("What was it?", "from the model"), ("Known already?", "from a Flash Query's answer")):
            await page.locator("#question").fill(question)
            await page.locator("#ask-button").click()
            await expect(page.locator("#answered")).to_contain_text(f"{source}, version 1")
            asked = {"prompt": question, "temperature": 0, "max_tokens": 256}
            said = api("POST", "/v1/sessions/s/generate", asked)["text"]
            await expect(page.locator("#answer")).to_have_text(said)


async def test_what_the_server_refuses_is_said_where_it_was_asked(browser: Browser, server: Server, api: Api) -> None:
    api.create("there", "Well?", type="iot")
    async with dashboard(browser, server.url) as page:
        await live(page)
        await create(page, Name="there")
        await expect(page.locator("#create output")).to_contain_text("there")
        await page.keyboard.press("Escape")
        await page.get_by_role("button", name="New question").click()
        await page.locator("#query").get_by_label("Question").fill("Well?")
        await page.locator("#query").get_by_role("button", name="Register").click()
        await expect(page.locator("#query output")).not_to_be_empty()
        await page.keyboard.press("Escape")
        for entry, said in (("{", "This is not JSON"), ('{"sid": "a"}', "data.val")):
            await page.locator("#entry").fill(entry)
            await page.get_by_role("button", name="Push", exact=True).click()
            await expect(page.locator("#pushed")).to_contain_text(said)


async def test_raw_text_is_an_entry_per_line(browser: Browser, server: Server, api: Api) -> None:
    api.create("text")
    async with dashboard(browser, server.url) as page:
        await live(page)
        await page.locator("#entry").fill("first 1\n\nsecond 2\n")
        await page.locator("#entry").press("Control+Enter")
        await expect(page.locator("#pushed")).to_contain_text("accepted as entry 2")
        await expect(page.locator("#entries tr").first).to_contain_text("second 2")
    assert [one["entry"] for one in api("GET", "/v1/sessions/text/entries")["data"]] == ["first 1", "second 2"]


async def test_the_keyboard_is_enough(browser: Browser, server: Server, api: Api) -> None:
    api.create("one", type="ohlcv")
    api.create("two")
    api.push("one", candles(3))
    async with dashboard(browser, server.url, "#/two") as page:
        await live(page)
        await page.keyboard.press("Tab")
        await expect(page.locator(".skip")).to_be_focused()
        await expect(page.locator(".skip")).to_be_in_viewport()
        await reach(page, "#create-button")
        await page.keyboard.press("Enter")
        await expect(page.locator("#create")).to_be_visible()
        await expect(page.locator("#create input[name=id]")).to_be_focused()
        await page.keyboard.press("Escape")
        await expect(page.locator("#create")).to_be_hidden()
        await expect(page.locator("#create-button")).to_be_focused()
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await expect(page.locator("#session-id")).to_have_text("one")
        await live(page)
        for place in ("#query-button", "#delete-button", ".data .table", "#question", "#ask-button", "#entry"):
            await reach(page, place)
            style = "(one) => getComputedStyle(one).outlineStyle"
            assert await page.locator(place).evaluate(style) != "none", f"{place} shows that it has the focus"
        # What has the focus keeps it while the page lives on.
        await page.keyboard.press("End")
        api.push("one", candles(1))
        await expect(page.locator("[data-fact=version]")).to_have_text(re.compile("^2$"))
        await expect(page.locator("#entry")).to_be_focused()


async def reach(page: Page, selector: str) -> None:
    """Go there with the tabulator key."""
    for _ in range(40):
        if await page.locator(selector).evaluate("(one) => one === document.activeElement"):
            return
        await page.keyboard.press("Tab")
    raise AssertionError(f"{selector} cannot be reached with the keyboard")
