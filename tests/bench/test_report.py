"""What a run leaves behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import report
from bench.rows import Result, Row, Series, at_most, compared

_MACHINE = {"cpu": "a CPU", "cores": 2}
_SERIES = Series("Latency", "tokens", "ms", {"ours": [(1.0, 2.0), (2.0, 3.0)], "theirs": [(1.0, 4.0), (2.0, 9.0)]})


def _result(ours: float) -> Result:
    return Result([compared("question", [ours], [20], "ms", "theirs", at_most(0.8))], {"latency": _SERIES}, rounds=5)


def test_rows_are_shown_with_ratio_target_and_whether_it_is_met(tmp_path: Path) -> None:
    report.write(tmp_path, "context", _result(10.0), _MACHINE)
    page = (tmp_path / "results.md").read_text()
    assert "| question | 10 ms | theirs | 20 ms | 0.5 | ≤ 0.8 | ✓ |" in page
    assert "| cpu | a CPU |" in page
    assert "![Latency](latency.svg)" in page


def test_a_family_replaces_its_own_rows_and_leaves_those_of_others(tmp_path: Path) -> None:
    report.write(tmp_path, "context", _result(10.0), _MACHINE)
    report.write(tmp_path, "polls", Result([Row(measure="polls", value=5000.0, unit="/s")], rounds=1), _MACHINE)
    report.write(tmp_path, "context", _result(18.0), _MACHINE)
    page = (tmp_path / "results.md").read_text()
    assert "| question | 18 ms | theirs | 20 ms | 0.9 | ≤ 0.8 | ✗ |" in page
    assert "| polls | 5,000 /s |  |  |  |  |  |" in page
    assert "10 ms" not in page


def test_what_is_read_back_is_what_was_written(tmp_path: Path) -> None:
    report.write(tmp_path, "context", _result(10.0), _MACHINE)
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["machine"] == _MACHINE
    assert report.unpacked(found["families"]["context"]).rows == _result(10.0).rows


def test_the_same_figures_make_the_same_plot(tmp_path: Path) -> None:
    plots = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        report.write(tmp_path / name, "context", _result(10.0), _MACHINE)
        plots.append((tmp_path / name / "latency.svg").read_bytes())
    assert plots[0] == plots[1]


@pytest.mark.parametrize(
    ("value", "shown"), [(0.12345, "0.123"), (12.345, "12.3"), (123.45, "123"), (20512.0, "20,512")]
)
def test_figures_have_three_digits(value: float, shown: str) -> None:
    assert report.figure(value) == shown
