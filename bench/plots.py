"""Plots as SVG that is the same for the same figures, byte by byte."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from bench.rows import Series

matplotlib.rcParams["svg.hashsalt"] = "askahead"


def draw(path: Path, series: Series) -> None:
    """One plot, a line for each label."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for label, points in series.lines.items():
        axes.plot(*zip(*points, strict=True), marker="o", label=label)
    if series.logarithmic:
        axes.set_yscale("log")
    axes.set(title=series.title, xlabel=series.x, ylabel=series.y)
    axes.grid(alpha=0.3)
    if len(series.lines) > 1:
        axes.legend()
    figure.savefig(path, format="svg", metadata={"Date": None})
