from __future__ import annotations

import json
from pathlib import Path

import pytest

from streams.engine.supported import refuse_unsupported
from streams.errors import ModelError


def model(directory: Path, **config: object) -> Path:
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.mark.parametrize(
    "architectures",
    [
        ["LlamaForCausalLM"],
        ["Starcoder2ForCausalLM"],
        ["NoSuchForCausalLM", "MistralForCausalLM"],
        ["BloomForCausalLM"],
        None,
        [],
    ],
)
def test_what_may_run_passes(tmp_path: Path, architectures: list[str] | None) -> None:
    refuse_unsupported(model(tmp_path, architectures=architectures))


@pytest.mark.parametrize("architecture", ["NoSuchForCausalLM", "Rwkv6ForCausalLM", "x" * 10_000])
def test_what_nothing_runs_is_refused_in_a_sentence(tmp_path: Path, architecture: str) -> None:
    with pytest.raises(ModelError, match=r"config\.json says that the model is a") as caught:
        refuse_unsupported(model(tmp_path, architectures=[architecture], model_type="none"))
    assert architecture[:90] in caught.value.message
    assert len(caught.value.message) < 500
