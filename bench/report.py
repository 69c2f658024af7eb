"""What a run leaves behind: figures as JSON, family by family in one file, and a page and plots drawn from that."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from bench.plots import draw
from bench.rows import Result, Row, Series, Target

_FILE, _PAGE = "results.json", "results.md"
_HEAD = "| measure | value | against | baseline | ratio | target | |\n|---|---|---|---|---|---|---|"


def table(name: str, result: Result) -> Table:
    """The rows for a terminal."""
    shown = Table(
        "measure", "value", "against", "baseline", "ratio", "target", "", title=f"{name}, {result.rounds} rounds"
    )
    for row in result.rows:
        shown.add_row(*_cells(row))
    return shown


def write(out: Path, name: str, result: Result, machine: dict[str, Any]) -> None:
    """Put a family's result in place of its former one, and draw page and plots anew from all there are."""
    file = out / _FILE
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"families": {}}
    found["machine"] = machine
    found["families"][name] = _packed(result)
    file.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    (out / _PAGE).write_text(page(found))
    for plot, series in result.series.items():
        draw(out / f"{plot}.svg", series)


def page(found: dict[str, Any]) -> str:
    """The Markdown page of a file's contents."""
    return "\n".join(_page(found)) + "\n"


def _page(found: dict[str, Any]) -> Iterator[str]:
    yield "# Figures"
    yield ""
    yield "Written by `python -m bench`. Medians of the rounds, and ratios of what was measured in the same rounds."
    yield ""
    yield "| machine | |\n|---|---|"
    for name, value in found["machine"].items():
        yield f"| {name} | {value} |"
    for name, family in found["families"].items():
        result = unpacked(family)
        yield ""
        yield f"## {name.capitalize()}"
        yield ""
        for plot, series in result.series.items():
            yield f"![{series.title}]({plot}.svg)"
            yield ""
        yield f"Rounds: {result.rounds}."
        yield ""
        yield _HEAD
        for row in result.rows:
            yield f"| {' | '.join(_cells(row))} |"


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.measure,
        f"{figure(row.value)} {row.unit}",
        row.against,
        "" if row.baseline is None else f"{figure(row.baseline)} {row.unit}",
        "" if row.ratio is None else figure(row.ratio),
        "" if row.target is None else str(row.target),
        "" if row.met is None else "✓" if row.met else "✗",
    )


def figure(value: float) -> str:
    """Three significant digits, and all of what is before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _packed(result: Result) -> dict[str, Any]:
    return {
        "rounds": result.rounds,
        "rows": [asdict(row) | {"met": row.met} for row in result.rows],
        "series": {name: asdict(series) for name, series in result.series.items()},
    }


def unpacked(family: dict[str, Any]) -> Result:
    """A family's result, from the file's contents."""
    rows = [{name: value for name, value in row.items() if name != "met"} for row in family["rows"]]
    return Result(
        rows=[Row(**row | {"target": None if row["target"] is None else Target(**row["target"])}) for row in rows],
        series={name: Series(**series) for name, series in family["series"].items()},
        rounds=family["rounds"],
    )
