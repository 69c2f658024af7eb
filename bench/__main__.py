"""``python -m bench``: run the measures and print the report; exit 1 if a target is missed."""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import asdict
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table

from bench import measures, turns, windows
from bench.harness import serving
from bench.measures import Row

MEASURES = (*measures.MEASURES, *turns.MEASURES, *windows.MEASURES)


async def _measure(names: list[str]) -> list[Row]:
    rows: list[Row] = []
    async with serving() as bench:
        for measure in MEASURES:
            if not names or measure.__name__ in names:
                rows += await measure(bench)
    return rows


def _table(rows: list[Row]) -> Table:
    table = Table("measure", "value", "baseline", "ratio", "target", title="Askahead, one run, interleaved rounds")
    for row in rows:
        table.add_row(
            row.measure,
            f"{row.value:.4g} {row.unit}",
            "" if row.baseline is None else f"{row.baseline:.4g} {row.unit}",
            "" if row.ratio is None else f"{row.ratio:.3f}",
            "" if row.target is None else f"≤ {row.target:g} {'✓' if row.ok else '✗'}",
        )
    return table


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("measures", nargs="*", help=f"which: {', '.join(m.__name__ for m in MEASURES)}; default all")
    parser.add_argument("--json", type=Path, help="write the rows to this file as well")
    arguments = parser.parse_args()
    rows = asyncio.run(_measure(arguments.measures))
    Console(width=140).print(_table(rows))
    if arguments.json:
        arguments.json.write_bytes(orjson.dumps([asdict(row) | {"ratio": row.ratio} for row in rows]))
    return 1 if any(row.ok is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
