"""Mamba in Hugging Face format, written once as a GGUF file: on a CPU llama.cpp runs it, and vLLM does not."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from streams.models import check, gguf

TYPE = "mamba"
"""What the configs say of it."""

_FILE = "model.gguf"
_OUTER = {"backbone.embeddings": "token_embd", "backbone.norm_f": "output_norm", "lm_head": "output"}
_INNER = {
    "norm": "attn_norm",
    "mixer.in_proj": "ssm_in",
    "mixer.conv1d": "ssm_conv1d",
    "mixer.x_proj": "ssm_x",
    "mixer.dt_proj": "ssm_dt",
    "mixer.out_proj": "ssm_out",
}
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
# It has no trained limit, and the format wants one.
_ENDLESS = 1 << 20


def convert(directory: Path, models_dir: Path, progress: Callable[[str], None]) -> Path:
    """Convert a model, unless that was done before. Weights keep their type.

    Args:
        directory: the model, in Hugging Face format.
        models_dir: created if missing; the result is in a directory in it.
        progress: called with one sentence before a conversion.

    Returns:
        The GGUF file.

    Raises:
        ModelError: it cannot be converted.
    """
    files = [file for pattern in ("*.safetensors", "*.json") for file in sorted(directory.glob(pattern))]
    return gguf.once(directory, gguf.identity(files), models_dir, progress) / _FILE


def write(directory: Path, into: Path) -> None:
    """Write the file. Run by the converter, in its own process.

    Raises:
        Exception: whatever a broken model makes its readers raise.
    """
    # Seconds to import, which only the converter's process has to spend.
    from gguf import GGUFWriter
    from transformers import AutoTokenizer

    config = check.config(directory)
    out = GGUFWriter(into / _FILE, TYPE, use_temp_file=True)
    out.add_context_length(_ENDLESS)
    out.add_embedding_length(config["hidden_size"])
    out.add_feed_forward_length(0)
    out.add_head_count(0)
    out.add_block_count(config["num_hidden_layers"])
    out.add_ssm_conv_kernel(config["conv_kernel"])
    out.add_ssm_inner_size(config["intermediate_size"])
    out.add_ssm_state_size(config["state_size"])
    out.add_ssm_time_step_rank(config["time_step_rank"])
    out.add_layer_norm_rms_eps(config["layer_norm_epsilon"])
    out.add_ssm_dt_b_c_rms(False)
    _add_vocabulary(out, AutoTokenizer.from_pretrained(directory), config["vocab_size"])
    _add_weights(out, directory)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def _add_vocabulary(out: Any, tokenizer: Any, rows: int) -> None:
    state: Mapping[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    if state["model"]["type"] != "BPE" or "ByteLevel" not in json.dumps(state["decoder"]):
        raise ValueError("its tokenizer is not byte-level BPE, as those of Mamba are")
    pieces = [f"[PAD{number}]" for number in range(rows)]
    kinds = [_UNUSED] * rows
    for piece, number in state["model"]["vocab"].items():
        pieces[number], kinds[number] = piece, _NORMAL
    for token in state["added_tokens"]:
        kind = _CONTROL if token["special"] else _USER_DEFINED
        pieces[token["id"]], kinds[token["id"]] = token["content"], kind
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("gpt-2")
    out.add_token_list(pieces)
    out.add_token_types(kinds)
    out.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in state["model"]["merges"]])
    if tokenizer.bos_token_id is not None:
        out.add_bos_token_id(tokenizer.bos_token_id)
    out.add_eos_token_id(tokenizer.eos_token_id)
    if tokenizer.chat_template is not None:
        out.add_chat_template(tokenizer.chat_template)


def _add_weights(out: Any, directory: Path) -> None:
    import torch
    from gguf import GGMLQuantizationType as Kind
    from gguf.quants import quantize
    from safetensors import safe_open

    kinds = {torch.float16: Kind.F16, torch.bfloat16: Kind.BF16}
    for file in sorted(directory.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118 - it is no dictionary
                tensor = weights.get_tensor(name)
                named, value = _renamed(name, tensor.float())
                # What is not multiplied as a matrix has to be in float32.
                matrix = value.dim() == 2 and "conv1d" not in named and not named.endswith("ssm_a")
                kind = kinds.get(tensor.dtype, Kind.F32) if matrix else Kind.F32
                out.add_tensor(named, quantize(value.contiguous().numpy(), kind), raw_dtype=kind)


def _renamed(name: str, tensor: Any) -> tuple[str, Any]:
    if name.endswith("mixer.A_log"):
        return f"blk.{name.split('.')[2]}.ssm_a", -tensor.exp()
    if name.endswith("mixer.D"):
        return f"blk.{name.split('.')[2]}.ssm_d", tensor
    base, suffix = name.rsplit(".", 1)
    if base in _OUTER:
        return f"{_OUTER[base]}.{suffix}", tensor
    _, _, layer, inner = base.split(".", 3)
    return f"blk.{layer}.{_INNER[inner]}.{suffix}", tensor.squeeze() if name.endswith("conv1d.weight") else tensor
