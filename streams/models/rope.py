"""How a GGUF file scales rotary positions, as the ``rope_parameters`` of a Hugging Face configuration. Pure.

llama.cpp keeps the scaling of Llama 3.1 and of Phi-3 as tensors with a factor for each frequency, and other scalings as
metadata. A model that is read without them answers wrongly from the second position on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

PREFIX = "rope.scaling."
"""Of the metadata, behind the architecture."""

FACTORS, SHORT, LONG = "rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"
"""Names of the tensors."""

# What every Llama since 3.1 was trained with; a file of factors fits other numbers as well, which mean the same.
_LLAMA3_LOW, _LLAMA3_HIGH, _LLAMA3_TRAINED = 1.0, 4.0, 8192

_YARN = {
    "yarn_attn_factor": "attention_factor",
    "yarn_beta_fast": "beta_fast",
    "yarn_beta_slow": "beta_slow",
}


class UnknownScaling(ValueError):
    """Positions are scaled in a way that has no name among Hugging Face's. The message is a clause."""


def scaling(
    metadata: Mapping[str, Any], factors: Mapping[str, Sequence[float]], *, theta: float, context: int
) -> dict[str, Any]:
    """What to add to ``rope_parameters``; empty where positions are not scaled.

    Args:
        metadata: of the file, without the architecture before each key.
        factors: the tensors of factors that the file has, by name.
        theta: base of the frequencies.
        context: the longest sequence in tokens.

    Raises:
        UnknownScaling: the file scales positions in some other way.
    """
    if FACTORS in factors:
        return _llama3(factors[FACTORS], theta)
    trained = int(metadata.get(f"{PREFIX}original_context_length", context))
    if SHORT in factors and LONG in factors:
        return {
            "rope_type": "longrope",
            "short_factor": list(factors[SHORT]),
            "long_factor": list(factors[LONG]),
            "original_max_position_embeddings": trained,
        }
    factor = metadata.get(f"{PREFIX}factor", metadata.get("rope.scale_linear", 0.0))
    # llama.cpp takes a factor without a type for a linear one.
    kind = metadata.get(f"{PREFIX}type", "linear")
    if kind == "none" or not factor or factor == 1.0:
        return {}
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn" and f"{PREFIX}yarn_log_multiplier" not in metadata:
        given = {ours: metadata[PREFIX + key] for key, ours in _YARN.items() if PREFIX + key in metadata}
        return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": trained, **given}
    raise UnknownScaling(f"it scales positions by {kind!r} in a way that cannot be taken over")


def _llama3(factors: Sequence[float], theta: float) -> dict[str, Any]:
    """Recover the numbers that a tensor of factors was computed from.

    Waves shorter than a quarter of the trained length keep their frequency, those longer than all of it are slowed by
    the whole factor, and between them the share of each is linear in the frequency.
    """
    largest = max(factors)
    if min(factors) == largest == 1.0:
        return {}
    lengths = [2 * math.pi * theta ** (i / len(factors)) for i in range(len(factors))]
    trained = _LLAMA3_TRAINED
    for length, factor in zip(lengths, factors, strict=True):
        if 1.0 < factor < largest:
            kept = (1 / factor - 1 / largest) / (1 - 1 / largest)
            trained = round(length * (kept * (_LLAMA3_HIGH - _LLAMA3_LOW) + _LLAMA3_LOW))
            break
    expected = [_llama3_factor(length, largest, trained) for length in lengths]
    if not all(math.isclose(a, b, rel_tol=1e-3) for a, b in zip(factors, expected, strict=True)):
        raise UnknownScaling("its factors of positions are not those of any Llama")
    return {
        "rope_type": "llama3",
        "factor": largest,
        "low_freq_factor": _LLAMA3_LOW,
        "high_freq_factor": _LLAMA3_HIGH,
        "original_max_position_embeddings": trained,
    }


def _llama3_factor(length: float, factor: float, trained: int) -> float:
    kept = (trained / length - _LLAMA3_LOW) / (_LLAMA3_HIGH - _LLAMA3_LOW)
    kept = min(max(kept, 0.0), 1.0)
    return 1 / (kept + (1 - kept) / factor)
