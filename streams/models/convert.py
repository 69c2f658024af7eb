"""The converter's own process: ``convert.py SOURCE DIRECTORY``. See :mod:`streams.models.gguf`.

Exits 0 when the directory is complete, else 1 with the reason as the only line on standard output.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

from streams.models import header, mamba, rope, split
from streams.models.complete import complete


def main(source: Path, into: Path) -> int:
    threading.Thread(target=_exit_with_parent, name="exit-with-parent", daemon=True).start()
    try:
        if source.is_dir():
            mamba.write(source, into)
        else:
            convert(source, into)
    except Exception as error:  # whatever a hostile file makes the parser raise, the parent needs a sentence
        print(_sentence(error))
        return 1
    return 0


def _sentence(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__


def _exit_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


def convert(source: Path, into: Path) -> None:
    """Write a model in Hugging Face format, complete with tokenizer and chat template.

    Raises:
        Exception: whatever a broken file makes its readers raise.
    """
    source = split.joined(source, into)
    head = header.read(source)
    # Seconds to import, and nobody need wait for them to hear that a file is broken.
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig

    named = {"pretrained_model_name_or_path": source.parent, "gguf_file": source.name}
    # The tokenizer first: it is quick, and a file without one is of no use.
    tokenizer = AutoTokenizer.from_pretrained(**named)
    config = AutoConfig.from_pretrained(**named)
    factors = {
        name: header.floats(source, head.tensors[name])
        for name in (rope.FACTORS, rope.SHORT, rope.LONG)
        if name in head.tensors
    }
    complete(config, head.architecture, head.values, factors)
    model = AutoModelForCausalLM.from_pretrained(
        **named, config=config, quantization_config=GgufConfig(dequantize=True), dtype=_dtype(head)
    )
    model.save_pretrained(into)
    tokenizer.save_pretrained(into)
    _drop_rowless(into / "tokenizer.json", model.get_input_embeddings().num_embeddings)
    _compute_in_bfloat16(into / "config.json")
    if source.parent == into:
        source.unlink()


def _dtype(head: header.Header) -> str:
    """The type to keep weights in: the file's own, and float16 for packed ones.

    Of 16 bits, float16 spends three more than bfloat16 on precision, which is what packed weights have.
    """
    from gguf import GGMLQuantizationType

    names = {GGMLQuantizationType(tensor.kind).name for tensor in head.tensors.values() if len(tensor.shape) > 1}
    if names == {"F32"}:
        return "float32"
    return "bfloat16" if names <= {"F32", "BF16"} else "float16"


def _compute_in_bfloat16(path: Path) -> None:
    """Say that a model kept in float16 computes in bfloat16, as nearly all were trained: some overflow in float16."""
    config = json.loads(path.read_text())
    if config["dtype"] == "float16":
        path.write_text(json.dumps(config | {"dtype": "bfloat16"}, indent=2) + "\n")


def _drop_rowless(path: Path, rows: int) -> None:
    """Drop the control tokens that the tokenizer's class adds of itself, which the model has no embedding for."""
    tokenizer = json.loads(path.read_text())
    tokenizer["added_tokens"] = [token for token in tokenizer["added_tokens"] if token["id"] < rows]
    path.write_text(json.dumps(tokenizer, ensure_ascii=False, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
