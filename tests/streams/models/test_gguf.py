from __future__ import annotations

import json
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from streams.errors import ModelError
from streams.models import gguf
from tests.streams.models.conftest import CHAT_TEMPLATE, write_tiny_gguf


@pytest.fixture(scope="module")
def converted(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gguf.convert(tiny_gguf, "tiny", tmp_path_factory.mktemp("models"), lambda _: None)


def entries(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_result_is_a_complete_model_of_the_same_precision(converted: Path) -> None:
    config = json.loads((converted / "config.json").read_text())
    assert config["model_type"] == "llama"
    assert config["max_position_embeddings"] == 128
    assert config["dtype"] == "float32"
    assert (converted / "model.safetensors").stat().st_size > 0
    assert {"tokenizer.json", "tokenizer_config.json"} <= entries(converted)


def test_no_token_is_without_a_row(converted: Path) -> None:
    rows = json.loads((converted / "config.json").read_text())["vocab_size"]
    tokenizer = AutoTokenizer.from_pretrained(converted)
    assert len(tokenizer) == rows
    assert max(tokenizer.get_vocab().values()) == rows - 1
    assert max(tokenizer("<|endoftext|>")["input_ids"]) < rows


def test_chat_template_is_kept(converted: Path) -> None:
    assert (converted / "chat_template.jinja").read_text() == CHAT_TEMPLATE


def test_second_call_does_not_convert_again(converted: Path, tiny_gguf: Path) -> None:
    messages: list[str] = []
    assert gguf.convert(tiny_gguf, "tiny", converted.parent, messages.append) == converted
    assert messages == []
    assert entries(converted.parent) == {converted.name}


def test_changed_file_is_another_model(
    converted: Path, tiny_gguf: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    messages: list[str] = []
    other = gguf.convert(tiny_gguf, "tiny, changed", tmp_path, messages.append)
    assert other.name != converted.name
    assert len(messages) == 1
    assert "tiny.gguf" in messages[0]
    # No progress bar where no person watches.
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "%|" not in captured.err


def convert_in_child(source: Path, models: Path, results: multiprocessing.Queue[tuple[str, int]]) -> None:
    messages: list[str] = []
    path = gguf.convert(source, "tiny", models, messages.append)
    results.put((path.name, len(messages)))


def test_two_processes_convert_once_between_them(tiny_gguf: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    children = [context.Process(target=convert_in_child, args=(tiny_gguf, tmp_path, results)) for _ in range(2)]
    for child in children:
        child.start()
    outcomes = [results.get(timeout=120) for _ in children]
    for child in children:
        child.join()
    assert len({name for name, _ in outcomes}) == 1
    assert sorted(count for _, count in outcomes) == [0, 1]
    assert entries(tmp_path) == {outcomes[0][0]}


def test_what_a_killed_process_leaves_is_never_used_and_removed(tiny_gguf: Path, tmp_path: Path) -> None:
    script = "import sys; from pathlib import Path; from streams.models import gguf\n"
    script += "gguf.convert(Path(sys.argv[1]), 'tiny', Path(sys.argv[2]), lambda m: print(m, flush=True))"
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(tiny_gguf), str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        child.stdout.readline()  # the conversion has begun
        while not any(tmp_path.glob(f"{gguf.PARTIAL}*")):
            os.sched_yield()
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    result = gguf.convert(tiny_gguf, "tiny", tmp_path, lambda _: None)
    assert entries(tmp_path) == {result.name}
    assert (result / "config.json").is_file()


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_truncated_file_is_refused_in_one_sentence(tiny_gguf: Path, tmp_path: Path, kept: float) -> None:
    whole = tiny_gguf.read_bytes()
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(whole[: int(len(whole) * kept)])
    models = tmp_path / "models"
    with pytest.raises(ModelError, match=r"broken\.gguf cannot be converted: it ends") as caught:
        gguf.convert(broken, "broken", models, lambda _: None)
    assert "\n" not in caught.value.message
    assert "Traceback" not in caught.value.message
    assert entries(models) == set()


@pytest.mark.parametrize("content", [b"", b"GG", b"hello", b"PK\x03\x04" + b"\0" * 100])
def test_other_file_is_refused_before_anything_starts(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="is not a GGUF file"):
        gguf.convert(path, "other", tmp_path / "models", lambda _: None)
    assert not (tmp_path / "models").exists()


def test_unknown_architecture_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "strange.gguf"
    write_tiny_gguf(path, architecture="strange")
    with pytest.raises(ModelError) as caught:
        gguf.convert(path, "strange", tmp_path / "models", lambda _: None)
    assert caught.value.message.startswith(f"{path} cannot be converted: GGUF model with architecture strange is not")
    assert caught.value.message.endswith("; get it again, or name a directory in Hugging Face format.")
    assert "\n" not in caught.value.message


def test_models_directory_that_cannot_be_made_is_an_error(tiny_gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "models").write_text("in the way")
    with pytest.raises(ModelError, match="cannot be converted"):
        gguf.convert(tiny_gguf, "tiny", tmp_path / "models", lambda _: None)
    assert stat.S_ISREG((tmp_path / "models").stat().st_mode)
