"""``python -m bench``: run the measures, write figures, page and plots; exit 1 if a target is missed."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import machine, report
from bench.families import chat, context, flash, floor, ingest, memory, polls, pushes, sessions, startup, window
from bench.servers import ROOT, Fleet

log = logging.getLogger("bench")

# In an order in which each can use the servers that the one before it has left.
FAMILIES = {
    "startup": startup.measure,
    "floor": floor.measure,
    "context": context.measure,
    "ingest": ingest.measure,
    "flash": flash.measure,
    "polls": polls.measure,
    "pushes": pushes.measure,
    "sessions": sessions.measure,
    "window": window.measure,
    "chat": chat.measure,
    "memory": memory.measure,
}
_LONG_ONLY = {"window", "chat"}


async def _run(names: list[str], full: bool, out: Path, console: Console) -> bool:
    """Measure family by family; what is found is written after each. Whether all targets were met."""
    met = True
    async with Fleet() as fleet:
        for name in names:
            log.info("measuring %s", name)
            result = await FAMILIES[name](fleet, full)
            console.print(report.table(name, result))
            report.write(out, name, result, machine.facts())
            met = met and not any(row.met is False for row in result.rows)
    return met


async def _until_stopped(run: Coroutine[Any, Any, bool]) -> bool:
    """Let SIGTERM do what Ctrl-C does: servers are stopped before this process ends."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await run


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"{', '.join(FAMILIES)}; default all")
    parser.add_argument("--full", action="store_true", help="the long form: most of an hour instead of ten minutes")
    parser.add_argument(
        "--out", type=Path, help="directory for the results; default docs/benchmarks, build/bench if short"
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.families) - set(FAMILIES):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(FAMILIES)}")
    logging.basicConfig(format="%(asctime)s bench: %(message)s", datefmt="%H:%M:%S")
    log.setLevel(logging.INFO)
    full = arguments.full
    names = [
        name
        for name in FAMILIES
        if name in arguments.families or (not arguments.families and (full or name not in _LONG_ONLY))
    ]
    out = arguments.out or ROOT / ("docs/benchmarks" if full else "build/bench")
    out.mkdir(parents=True, exist_ok=True)
    met = asyncio.run(_until_stopped(_run(names, full, out, Console(width=150))))
    print(f"bench: results are in {out}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
