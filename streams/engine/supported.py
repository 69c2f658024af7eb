"""Which architectures vLLM runs, asked before anything is loaded."""

from __future__ import annotations

import os
from pathlib import Path

from streams.errors import ModelError, short
from streams.models import check


def refuse_unsupported(model: Path) -> None:
    """Refuse a model of an architecture that neither vLLM nor transformers knows.

    A config that names none passes: vLLM tells the architecture from other fields of it.

    Args:
        model: directory with ``config.json``.

    Raises:
        ModelError: nothing here runs it, or it has no ``config.json``.
    """
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # read on import
    import transformers
    from vllm import ModelRegistry

    named = check.config(model).get("architectures") or []
    known = ModelRegistry.get_supported_archs()
    if named and not any(each in known or hasattr(transformers, str(each)) for each in named):
        raise ModelError(
            f"{model / 'config.json'} says that the model is a {short(named[0])}, an architecture that the engine does"
            " not run; name a model of another one, such as Llama, Mistral, Gemma, Phi or Qwen.",
            param="model",
        )
