"""Every level of quantisation is loaded, and costs as much accuracy as its bits say."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from streams.models.convert import convert
from tests.models import quantise, toys
from tests.models.vocabulary import readings

# Blocks of the K levels are 256 wide.
SIZES = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64}
DEVIATION = 0.06

BOUNDS = {
    "F16": 0.002,
    "Q8_0": 0.04,
    "Q6_K": 0.12,
    "Q5_K_M": 0.2,
    "Q4_K_M": 0.4,
    "Q4_0": 0.55,
    "Q2_K": 1.2,
}
"""Of the error; random weights have no structure to spare, so that a trained model fares better."""


def measured(model: Path, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        logits: torch.Tensor = loaded(tokens).logits[0]
    return logits


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str | int | float]]:
    """A row for every level: bytes of the file, error of the logits, how often the most probable token is the same.

    The error is the root mean square of the difference, in standard deviations of the exact logits. The table is
    printed, and written as ``levels.json`` to the directory ``ASKAHEAD_TEST_TABLES``, if that is set.
    """
    place = tmp_path_factory.mktemp("levels")
    original = toys.build("llama-3.1", place / "original", fields=SIZES, deviation=DEVIATION)
    tokens = torch.tensor([AutoTokenizer.from_pretrained(original)(readings(24))["input_ids"]])
    exact = measured(original, tokens)
    rows: list[dict[str, str | int | float]] = []
    for name, level in quantise.LEVELS.items():
        converted = place / name
        converted.mkdir()
        file = quantise.write(original, place / f"toy-{name}.gguf", level)
        convert(file, converted)
        logits = measured(converted, tokens)
        error = float((logits - exact).square().mean().sqrt() / exact.std())
        same = float((logits.argmax(-1) == exact.argmax(-1)).float().mean())
        rows.append({"level": name, "bytes": file.stat().st_size, "error": round(error, 5), "same": round(same, 3)})
    print("\n| level | bytes | error of the logits | same first choice |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row['level']} | {row['bytes']} | {row['error']} | {row['same']} |")
    target = Path(os.environ.get("ASKAHEAD_TEST_TABLES", place))
    (target / "levels.json").write_text(json.dumps(rows, indent=2) + "\n")
    return rows


def test_error_rises_as_bits_fall(table: list[dict[str, str | int | float]]) -> None:
    errors = [float(row["error"]) for row in table]
    assert [row["level"] for row in table] == list(BOUNDS)
    assert errors == sorted(errors)
    assert len(set(errors)) == len(errors)
    assert [row["bytes"] for row in table] == sorted((row["bytes"] for row in table), reverse=True)


@pytest.mark.parametrize("level", BOUNDS)
def test_error_is_bounded(table: list[dict[str, str | int | float]], level: str) -> None:
    row = next(row for row in table if row["level"] == level)
    assert 0 < float(row["error"]) < BOUNDS[level]
