"""A Mamba toy of transformers' making, and the same as a GGUF file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np
import torch
from transformers import MambaConfig, MambaForCausalLM

from tests.engine.models import CHATML
from tests.models.rwkv_toy import CONTROL, VOCABULARY, words, write_vocabulary

_OUTER = {"backbone.embeddings": "token_embd", "backbone.norm_f": "output_norm", "lm_head": "output"}
_INNER = {
    "norm": "attn_norm",
    "mixer.in_proj": "ssm_in",
    "mixer.conv1d": "ssm_conv1d",
    "mixer.x_proj": "ssm_x",
    "mixer.dt_proj": "ssm_dt",
    "mixer.out_proj": "ssm_out",
}


def model(seed: int = 5) -> MambaForCausalLM:
    """Random weights of a large deviation: the most probable token depends on the whole prompt."""
    config = MambaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        state_size=16,
        num_hidden_layers=2,
        conv_kernel=4,
        expand=2,
        time_step_rank=4,
        tie_word_embeddings=False,
        pad_token_id=None,
        bos_token_id=0,
        eos_token_id=CONTROL.index("<|im_end|>"),
    )
    made = MambaForCausalLM(config).eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter in made.parameters():
        noise = torch.randn(parameter.shape, generator=generator) * 0.3
        parameter.data = noise if parameter.dim() >= 2 else parameter.data + noise
    return made


def log_probabilities(made: MambaForCausalLM, tokens: Sequence[int]) -> list[float]:
    """Of each token after these."""
    with torch.no_grad():
        logits = made(torch.tensor([list(tokens)])).logits[0, -1]
    found: list[float] = logits.double().log_softmax(0).tolist()
    return found


def write(made: MambaForCausalLM, into: Path) -> Path:
    """As a file of llama.cpp's."""
    config = made.config
    out = gguf.GGUFWriter(into, "mamba")
    out.add_context_length(1 << 20)
    out.add_embedding_length(config.hidden_size)
    out.add_feed_forward_length(0)
    out.add_head_count(0)
    out.add_block_count(config.num_hidden_layers)
    out.add_ssm_conv_kernel(config.conv_kernel)
    out.add_ssm_inner_size(config.intermediate_size)
    out.add_ssm_state_size(config.state_size)
    out.add_ssm_time_step_rank(config.time_step_rank)
    out.add_layer_norm_rms_eps(config.layer_norm_epsilon)
    out.add_ssm_dt_b_c_rms(False)
    write_vocabulary(out, json.loads(words().to_str()), CHATML)
    for name, tensor in made.state_dict().items():
        named, value = _renamed(name, tensor.float())
        out.add_tensor(named, np.ascontiguousarray(value.numpy()))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return into


def _renamed(name: str, tensor: torch.Tensor) -> tuple[str, torch.Tensor]:
    if name.endswith("mixer.A_log"):
        return f"blk.{name.split('.')[2]}.ssm_a", -torch.exp(tensor)
    if name.endswith("mixer.D"):
        return f"blk.{name.split('.')[2]}.ssm_d", tensor
    base, suffix = name.rsplit(".", 1)
    if base in _OUTER:
        return f"{_OUTER[base]}.{suffix}", tensor
    _, _, layer, inner = base.split(".", 3)
    return f"blk.{layer}.{_INNER[inner]}.{suffix}", tensor.squeeze() if name.endswith("conv1d.weight") else tensor
