"""A model that was converted to GGUF and back answers as before: nothing it computes with was lost on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from streams.models.convert import convert
from tests.models import quantise, toys
from tests.models.vocabulary import readings

LONG_FACTORS = [1.0 + 0.5 * i for i in range(16)]
SHORT_FACTORS = [1.0 + 0.1 * i for i in range(16)]
LLAMA = {"rope_theta": 10000.0}
LAYERS = 6
"""Gemma 3 has one layer in six that sees everything."""

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama 3.1": ("llama-3.1", {}),
    "Llama 3.2": ("llama-3.2", {}),
    "linear": ("llama-3.1", {"rope_parameters": LLAMA | {"rope_type": "linear", "factor": 4.0}}),
    "YaRN": (
        "llama-3.1",
        {
            "rope_parameters": LLAMA
            | {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": toys.CONTEXT // 4}
        },
    ),
    "Phi-3": ("phi-3", {}),
    "Phi-3 with a window": ("phi-3", {"sliding_window": toys.WINDOW}),
    "Phi-3 for long contexts": (
        "phi-3",
        {
            "original_max_position_embeddings": 128,
            "rope_parameters": LLAMA
            | {"rope_type": "longrope", "long_factor": LONG_FACTORS[:16], "short_factor": SHORT_FACTORS[:16]},
        },
    ),
    "Phi-4 mini": (
        "phi-3",
        {
            "original_max_position_embeddings": 128,
            "rope_parameters": LLAMA
            | {
                "rope_type": "longrope",
                "partial_rotary_factor": 0.5,
                "long_factor": LONG_FACTORS[:8],
                "short_factor": SHORT_FACTORS[:8],
            },
        },
    ),
    "Gemma 2": ("gemma-2", {}),
    "Gemma 3": (
        "gemma-3",
        {
            "num_hidden_layers": LAYERS,
            "layer_types": ["sliding_attention"] * (LAYERS - 1) + ["full_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
        },
    ),
}


def logits(path: Path, tokens: torch.Tensor) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    with torch.no_grad():
        found: torch.Tensor = model(tokens).logits[0]
    return found


@pytest.mark.parametrize("name", MODELS)
def test_converted_model_computes_the_same(name: str, tmp_path: Path) -> None:
    toy, fields = MODELS[name]
    original = toys.build(toy, tmp_path / "original", fields=fields)
    converted = tmp_path / "converted"
    converted.mkdir()
    convert(quantise.write(original, tmp_path / "toy.gguf"), converted)

    batch = torch.tensor([AutoTokenizer.from_pretrained(original)(readings(24))["input_ids"]])
    assert batch.shape[1] > 2 * 128  # well past every window and trained length here
    torch.testing.assert_close(logits(converted, batch), logits(original, batch), rtol=1e-3, atol=1e-3)


def test_tokenizer_and_template_are_kept(tmp_path: Path) -> None:
    original = toys.build("llama-3.1", tmp_path / "original")
    converted = tmp_path / "converted"
    converted.mkdir()
    convert(quantise.write(original, tmp_path / "toy.gguf"), converted)
    before, after = (AutoTokenizer.from_pretrained(path) for path in (original, converted))
    assert after.get_vocab() == before.get_vocab()
    assert after.chat_template == before.chat_template
    for text in (readings(24), "Für Übergrößen 温度 <|eot_id|> und <|endoftext|>"):
        assert after(text)["input_ids"] == before(text)["input_ids"]
    said = [{"role": "user", "content": "What changed?"}]
    assert after.apply_chat_template(said, tokenize=False) == before.apply_chat_template(said, tokenize=False)


def test_weights_of_16_bits_stay_as_they_are_and_compute_in_bfloat16(tmp_path: Path) -> None:
    original = toys.build("llama-3.1", tmp_path / "original")
    converted = tmp_path / "converted"
    converted.mkdir()
    convert(quantise.write(original, tmp_path / "toy.gguf", quantise.LEVELS["F16"]), converted)
    before, after = (load_file(path / "model.safetensors") for path in (original, converted))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name].half(), after[name]) for name in before)
    assert json.loads((converted / "config.json").read_text())["dtype"] == "bfloat16"
