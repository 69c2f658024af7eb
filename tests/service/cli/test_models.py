"""``askahead models plan``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from service.cli.main import app
from tests.models import rwkv_toy
from tests.streams.models.configs import KNOWN
from tests.streams.models.conftest import write_tiny_gguf

GIB = 2**30


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    model = tmp_path / "Llama-3.1-8B"
    model.mkdir()
    config = KNOWN[model.name].config | {"max_position_embeddings": 131_072}
    (model / "config.json").write_text(json.dumps(config))
    return model


def plan(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["models", "plan", *map(str, arguments)], env={"COLUMNS": "200"})
    return result.exit_code, result.stdout, result.stderr


def values(*arguments: str | Path) -> dict[str, Any]:
    code, output, error = plan(*arguments, "--json")
    assert (code, error) == (0, "")
    told: dict[str, Any] = json.loads(output)
    return told


def test_a_table_for_people(llama: Path) -> None:
    code, output, error = plan(llama, "--context", "8192", "--gpu-memory", "24", "--sessions", "4")
    assert (code, error) == (0, "")
    assert "8.03 B parameters, 32 layers of 4096, 32 heads over 8 of keys and values" in output
    assert "128.0 KiB per token" in output
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in output.splitlines() if line.startswith("│")]
    assert ["Q4_K_M", "4.52"] in rows
    assert ["8192", "1024.0", "4"] in rows
    assert "19.96 GiB for the weights, 4 streams of 8192 tokens and a question beside them" in output


def test_json_for_programs(llama: Path) -> None:
    told = values(llama, "--context", "8192", "--gpu-memory", "24")
    assert told["parameters"] == KNOWN[llama.name].parameters
    assert (told["trained_context"], told["context"]) == (131_072, 8192)
    assert told["weights"]["loaded"] == 2 * told["parameters"]
    assert told["kv_cache"]["token"] == 128 * 1024
    assert told["kv_cache"]["streams"][-1] == {"tokens": 8192, "bytes": GIB, "fit": 4}
    assert told["needed"] == told["weights"]["loaded"] + 2 * GIB + 2 * 2**20


@pytest.mark.parametrize("arguments", [(), ("--context", "0")])
def test_without_a_context_it_is_the_trained_length(llama: Path, arguments: tuple[str, ...]) -> None:
    told = values(llama, *arguments)
    assert told["context"] == 131_072
    # Nobody knows how much memory there is.
    assert told["kv_cache"]["streams"][-1]["fit"] is None


def test_a_model_without_length_is_planned_for_some(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(KNOWN["Mamba-1.4B"].config))
    told = values(tmp_path, "--gpu-memory", "8")
    assert told["trained_context"] is None
    assert {stream["fit"] for stream in told["kv_cache"]["streams"]} == {told["kv_cache"]["streams"][0]["fit"]}
    assert "a state of the same size" in plan(tmp_path)[1]


def test_a_level_is_picked_and_what_was_picked_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for level in ("Q4_K_M", "Q8_0"):
        write_tiny_gguf(tmp_path / f"tiny-{level}.gguf")
    code, output, error = plan(tmp_path, "--json")
    assert (code, json.loads(output)["model"]) == (0, "tiny-Q4_K_M")
    assert "2 GGUF models, of which tiny-Q4_K_M is taken" in error
    assert values(f"{tmp_path}:Q8_0")["model"] == "tiny-Q8_0"
    # As the server takes it.
    monkeypatch.setenv("ASKAHEAD_MODEL", f"{tmp_path}:Q8_0")
    assert values()["model"] == "tiny-Q8_0"
    assert plan("--revision", "v1")[2].endswith("leave one of them out.\n")


def test_a_recurrent_model_in_a_file_is_planned_as_it_is_served(tmp_path: Path) -> None:
    file = rwkv_toy.build(tmp_path / "toy.gguf")
    told = values(file, "--sessions", "3")
    weights, state = told["weights"], 2 * 64 * (2 + 32) * 4
    # As they are in the file, not in 16 bits.
    assert weights["loaded"] == weights["stored"] == 4 * told["parameters"]
    assert (told["kv_cache_type"], told["context"]) == (None, 32_768)
    assert {stream["bytes"] for stream in told["kv_cache"]["streams"]} == {2 * state}
    assert "States in fp32: a state of the same size" in plan(file)[1]
    assert plan(file, "--kv-cache-type", "int8")[2].startswith("askahead: Leave out --kv-cache-type")
    assert plan(file, "--gpu-memory", "8")[2].startswith("askahead: Leave out --gpu-memory")


@pytest.mark.parametrize(("name", "same"), [("q8_0", "int8"), ("q4_0", "int4"), ("f16", "fp16"), ("INT4", "int4")])
def test_kv_cache_types_have_several_names(llama: Path, name: str, same: str) -> None:
    assert values(llama, "--kv-cache-type", name) == values(llama, "--kv-cache-type", same)
    assert values(llama, "--kv-cache-type", name)["kv_cache_type"] == same


def test_too_little_memory_is_refused_after_the_table(llama: Path) -> None:
    code, output, error = plan(llama, "--context", "8192", "--gpu-memory", "24", "--sessions", "5")
    assert code == 1
    assert "streams that fit" in output
    assert error.startswith("askahead: 5 streams of 8192 tokens and a question beside them need 6.00 GiB of KV cache")
    assert "which hold 4. Make that 6.01 GiB" in error
    code, _, error = plan(llama, "--gpu-memory", "8")
    assert code == 1
    assert error.startswith("askahead: The weights of Llama-3.1-8B take 14.96 GiB")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--context", "100"), "--context: must be 0 (the model's trained length) or at least 256 tokens"),
        (("--kv-cache-type", "q5_1"), "--kv-cache-type: must be fp16, fp8, int8 or int4, not 'q5_1'"),
    ],
)
def test_bad_values_are_one_sentence(llama: Path, arguments: tuple[str, ...], message: str) -> None:
    assert plan(llama, *arguments) == (1, "", f"askahead: {message}\n")


@pytest.mark.parametrize(
    "arguments", [("--sessions", "0"), ("--gpu-memory", "-1"), ("--context", "x"), ("--context", "-1")]
)
def test_impossible_values_are_refused(llama: Path, arguments: tuple[str, ...]) -> None:
    assert plan(llama, *arguments)[0] == 2


def test_no_model_there_is_one_sentence(tmp_path: Path) -> None:
    code, output, error = plan(tmp_path)
    assert (code, output) == (1, "")
    assert error.startswith("askahead: ")
    assert error.count("\n") == 1


def test_a_directory_is_planned_without_the_engines_libraries(llama: Path) -> None:
    script = (
        "import sys\nfrom service.cli.main import app\n"
        f"try: app(['models', 'plan', {str(llama)!r}])\n"
        "except SystemExit as exit: assert not exit.code\n"
        "assert not {'torch', 'vllm', 'transformers', 'huggingface_hub'} & set(sys.modules), 'loaded'\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60, stdout=subprocess.DEVNULL)
