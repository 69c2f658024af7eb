"""The converter's own process: ``convert.py GGUF DIRECTORY``. See :mod:`streams.models.gguf`.

Exits 0 when the directory is complete, else 1 with the reason as the only line on standard output.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path


def main(source: Path, into: Path) -> int:
    threading.Thread(target=_exit_with_parent, name="exit-with-parent", daemon=True).start()
    try:
        _convert(source, into)
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


def _convert(source: Path, into: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    # The tokenizer first: it is quick, and a file without one is of no use.
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    model = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
    )
    model.save_pretrained(into)
    tokenizer.save_pretrained(into)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
