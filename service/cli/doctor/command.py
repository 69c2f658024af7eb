"""``askahead doctor`` itself: look, tell, and end with what it amounts to."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.cli.doctor.checks import Check, Status
from service.cli.doctor.probes import all_checks
from service.cli.failures import FAILED
from service.cli.showing import print_json
from service.settings import Settings

_MARKS = {Status.OK: ("✓", "green"), Status.WARN: ("!", "yellow"), Status.FAIL: ("✗", "red")}


async def run(settings: Settings, url: str | None, *, json: bool) -> int:
    """Check everything and print it. Returns the exit code: 1 if something fails."""
    found: list[Check] = []
    with Console(stderr=True).status("looking") as status:
        async with aclosing(all_checks(settings, url)) as probes:
            async for check in probes:
                found.append(check)
                status.update(f"looked at {check.name}")
    failed = sum(check.status is Status.FAIL for check in found)
    if json:
        print_json({"ok": not failed, "checks": [asdict(check) for check in found]})
    else:
        Console().print(_table(found))
        warned = sum(check.status is Status.WARN for check in found)
        print(f"{failed} to be fixed, {warned} that could be better, of {len(found)}")
    return FAILED if failed else 0


def _table(found: list[Check]) -> Table:
    table = Table.grid(padding=(0, 1))
    for check in found:
        mark, style = _MARKS[check.status]
        told = Text(check.found)
        if check.fix:
            told.append(f"\n→ {check.fix}", style=style)
        table.add_row(Text(mark, style=style), Text(check.name, style="bold"), told)
    return table
