"""An RWKV-6 toy as a GGUF file: the real architecture, random weights, a vocabulary trained on the spot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tests.engine.models import CHATML

HIDDEN, LAYERS, HEAD, INNER, MIX, DECAY = 64, 2, 32, 128, 32, 64
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VOCABULARY = 512
EPSILON = 1e-5

_CORPUS = [
    "The sensor reads 21.5 degrees; the pressure is steady at 1013 hPa and falling slowly.",
    "AAPL closed at 187.32, volume 52 million, up 1.4 percent. Is the trend rising or falling?",
    "Patient 12: heart rate 71, oxygen 98 percent, blood pressure 120 over 80. Answer yes or no.",
    "Question: what changed since yesterday? Answer: nothing unusual, everything within normal limits.",
    "Temperature and humidity were measured at noon; the alarm threshold was exceeded twice this morning.",
    " ".join(str(number * number) for number in range(200)),
]

Weights = Mapping[str, NDArray[np.float32]]


def words() -> Tokenizer:
    """A byte-level BPE vocabulary of at most :data:`VOCABULARY` tokens, the control tokens first."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(CONTROL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
        min_frequency=1,
    )
    backend.train_from_iterator(_CORPUS, trainer)
    return backend


def weights(seed: int = 0) -> Weights:
    """Random ones, by llama.cpp's names, with its shapes.

    Their deviation is large: the most probable token is clearly ahead of the next and depends on the whole prompt.
    """
    random = np.random.default_rng(seed)

    def normal(*shape: int, deviation: float = 0.3) -> NDArray[np.float32]:
        return (random.standard_normal(shape) * deviation).astype(np.float32)

    def uniform(*shape: int) -> NDArray[np.float32]:
        return random.random(shape).astype(np.float32)

    def norm(name: str) -> dict[str, NDArray[np.float32]]:
        return {f"{name}.weight": np.ones(HIDDEN, np.float32), f"{name}.bias": np.zeros(HIDDEN, np.float32)}

    made = {"token_embd.weight": normal(VOCABULARY, HIDDEN, deviation=1.0), "output.weight": normal(VOCABULARY, HIDDEN)}
    made |= norm("token_embd_norm") | norm("output_norm")
    for layer in range(LAYERS):
        at = f"blk.{layer}."
        made |= norm(at + "attn_norm") | norm(at + "attn_norm_2") | norm(at + "time_mix_ln")
        made |= {at + f"time_mix_{name}.weight": normal(HIDDEN, HIDDEN) for name in ("receptance", "key", "value")}
        made |= {at + f"time_mix_{name}.weight": normal(HIDDEN, HIDDEN) for name in ("output", "gate")}
        made |= {
            at + "time_mix_w1.weight": normal(5 * MIX, HIDDEN, deviation=0.1),
            at + "time_mix_w2.weight": normal(5, HIDDEN, MIX, deviation=0.1),
            at + "time_mix_lerp_x.weight": uniform(HIDDEN),
            at + "time_mix_lerp_fused.weight": uniform(5, 1, 1, HIDDEN),
            at + "time_mix_first.weight": normal(HIDDEN // HEAD, HEAD),
            at + "time_mix_decay.weight": normal(HIDDEN) - 3,
            at + "time_mix_decay_w1.weight": normal(DECAY, HIDDEN, deviation=0.1),
            at + "time_mix_decay_w2.weight": normal(HIDDEN, DECAY, deviation=0.1),
            at + "channel_mix_lerp_k.weight": uniform(HIDDEN),
            at + "channel_mix_lerp_r.weight": uniform(HIDDEN),
            at + "channel_mix_key.weight": normal(INNER, HIDDEN),
            at + "channel_mix_value.weight": normal(HIDDEN, INNER),
            at + "channel_mix_receptance.weight": normal(HIDDEN, HIDDEN),
        }
    return made


def build(into: Path, *, seed: int = 0, template: str | None = CHATML) -> Path:
    """Write the toy.

    Args:
        into: the file.
        seed: of the weights.
        template: the chat template; None for a base model's lack of one.
    """
    out = gguf.GGUFWriter(into, "rwkv6")
    out.add_context_length(1 << 20)
    out.add_embedding_length(HIDDEN)
    out.add_block_count(LAYERS)
    out.add_layer_norm_eps(EPSILON)
    out.add_rescale_every_n_layers(0)
    out.add_wkv_head_size(HEAD)
    out.add_time_mix_extra_dim(MIX)
    out.add_time_decay_extra_dim(DECAY)
    out.add_feed_forward_length(INNER)
    out.add_head_count(0)
    write_vocabulary(out, json.loads(words().to_str()), template)
    for name, tensor in weights(seed).items():
        out.add_tensor(name, np.ascontiguousarray(tensor))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return into


def write_vocabulary(out: gguf.GGUFWriter, state: Mapping[str, Any], template: str | None) -> None:
    """A byte-level vocabulary, with as many tokens as the models have rows."""
    pieces = sorted(state["model"]["vocab"], key=state["model"]["vocab"].__getitem__)
    pieces += [f"[PAD{number}]" for number in range(len(pieces), VOCABULARY)]
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("gpt-2")
    out.add_token_list(pieces)
    out.add_token_types([3 if piece in CONTROL else 5 if piece.startswith("[PAD") else 1 for piece in pieces])
    out.add_token_merges([" ".join(pair) for pair in state["model"]["merges"]])
    out.add_bos_token_id(CONTROL.index("<|endoftext|>"))
    out.add_eos_token_id(CONTROL.index("<|im_end|>"))
    if template is not None:
        out.add_chat_template(template)


class Reference:
    """The architecture written down plainly, a token at a time: what llama.cpp's answers are measured by."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._shifts = np.zeros((LAYERS, 2, HIDDEN))
        self._states = np.zeros((LAYERS, HIDDEN // HEAD, HEAD, HEAD))

    def read(self, tokens: Sequence[int]) -> NDArray[np.float64]:
        """Logits after these, and after all that was read before."""
        for token in tokens:
            x = self._norm(self._weights["token_embd.weight"][token].astype(np.float64), "token_embd_norm")
            for layer in range(LAYERS):
                x = x + self._time_mix(layer, self._norm(x, f"blk.{layer}.attn_norm"))
                x = x + self._channel_mix(layer, self._norm(x, f"blk.{layer}.attn_norm_2"))
        logits: NDArray[np.float64] = self._weights["output.weight"] @ self._norm(x, "output_norm")
        return logits

    def _norm(self, x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        x = (x - x.mean()) / np.sqrt(x.var() + EPSILON)
        return x * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]

    def _shift(self, layer: int, which: int, x: NDArray[np.float64]) -> NDArray[np.float64]:
        before = self._shifts[layer, which].copy()
        self._shifts[layer, which] = x
        return before - x

    def _time_mix(self, layer: int, x: NDArray[np.float64]) -> NDArray[np.float64]:
        def of(name: str) -> NDArray[np.float32]:
            return self._weights[f"blk.{layer}.time_mix_{name}.weight"]

        past = self._shift(layer, 0, x)
        inner = np.tanh(of("w1") @ (x + past * of("lerp_x"))).reshape(5, MIX)
        mixed = np.einsum("nhm,nm->nh", of("w2"), inner) + of("lerp_fused").reshape(5, HIDDEN)
        w, k, v, r, g = x + past * mixed
        decay = np.exp(-np.exp(of("decay") + of("decay_w2") @ np.tanh(of("decay_w1") @ w))).reshape(-1, HEAD)
        key, value, receptance = (
            (of(n) @ y).reshape(-1, HEAD) for n, y in zip(("key", "value", "receptance"), (k, v, r), strict=True)
        )
        gate = of("gate") @ g
        new = key[:, :, None] * value[:, None, :]
        state = self._states[layer]
        out = np.einsum("hi,hij->hj", receptance, of("first")[:, :, None] * new + state)
        self._states[layer] = decay[:, :, None] * state + new
        out = (out - out.mean(1, keepdims=True)) / np.sqrt(out.var(1, keepdims=True) + 64e-5)
        normed = out.reshape(HIDDEN) * of("ln") + self._weights[f"blk.{layer}.time_mix_ln.bias"]
        return of("output") @ (normed * gate / (1 + np.exp(-gate)))

    def _channel_mix(self, layer: int, x: NDArray[np.float64]) -> NDArray[np.float64]:
        def of(name: str) -> NDArray[np.float32]:
            return self._weights[f"blk.{layer}.channel_mix_{name}.weight"]

        past = self._shift(layer, 1, x)
        key = np.maximum(of("key") @ (x + past * of("lerp_k")), 0) ** 2
        return (of("value") @ key) / (1 + np.exp(-(of("receptance") @ (x + past * of("lerp_r")))))


def behind(prompt: Sequence[int], answer: Sequence[int]) -> list[float]:
    """How far each token of an answer to a prompt is behind the most probable one, in logits."""
    reference, found = Reference(weights()), []
    logits = reference.read(prompt)
    for token in answer:
        found.append(float(logits.max() - logits[token]))
        logits = reference.read([token])
    return found
