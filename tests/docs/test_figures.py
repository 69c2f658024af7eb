"""The README's figures are those that were measured."""

from __future__ import annotations

import json

import pytest

from tests.servers import ROOT

_ROWS = {
    row["measure"]: row["value"]
    for row in json.loads((ROOT / "docs/benchmarks/results.json").read_text())["families"]["context"]["rows"]
}
_README = (ROOT / "README.md").read_text()


def _milliseconds(context: int, side: str) -> str:
    value = _ROWS[f"{context}: {side}, first token, p50"]
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


@pytest.mark.parametrize(
    ("row", "side"),
    [
        ("**Askahead, Flash Query**", "Flash Query"),
        ("**Askahead, any question**", "Askahead"),
        ("vLLM, prefix caching", "vllm serve"),
        ("llama.cpp", "llama.cpp server"),
        ("vLLM, no prefix caching", "vllm serve, no prefix cache"),
    ],
)
def test_the_comparison_is_the_benchmarks(row: str, side: str) -> None:
    figures = " | ".join(f"{_milliseconds(context, side)} ms" for context in (2048, 4096, 7168))
    assert f"| {row} | {figures} |" in _README


def test_what_the_comparison_leaves_out_is_said() -> None:
    at_once = [_milliseconds(context, "Askahead, tick included") for context in (2048, 4096, 7168)]
    assert "it takes {}, {} and {} ms.".format(*at_once) in _README
