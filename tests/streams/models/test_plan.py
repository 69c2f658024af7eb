"""What fits where: the specification's table, the arithmetic, and refusals that say what to change."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import ModelError
from streams.models.plan import GIB, Cache, KvType, Plan, billions, gpu_pool, kv_type, weight_bytes
from streams.models.shape import Shape
from tests.streams.models.configs import KNOWN

# Memory of the weights in gigabytes, as the specification's page has it.
PAGE = {
    "Llama-3.2-1B": {"Q4_K_M": 1, "Q8_0": 2, "F16": 3},
    "Mistral-7B-v0.3": {"Q4_K_M": 5, "Q8_0": 8, "F16": 15},
    "Llama-2-13B": {"Q4_K_M": 8, "Q8_0": 14, "F16": 27},
    "CodeLlama-34B": {"Q4_K_M": 20, "Q8_0": 36, "F16": 68},
    "Llama-3.1-70B": {"Q4_K_M": 40, "Q8_0": 72, "F16": 140},
}
# Sizes relative to F16, as the page has them, in percent.
RELATIVE = {"F16": 100, "Q8_0": 50, "Q6_K": 40, "Q5_K_M": 35, "Q4_K_M": 28, "Q4_0": 25, "Q2_K": 15}


def planned(
    name: str, *, context: int = 8192, pool: float | None = None, sessions: int | None = None, kv: KvType = "fp16"
) -> Plan:
    shape = Shape.of(KNOWN[name].config)
    return Plan(
        name=name,
        shape=shape,
        weights=weight_bytes(shape.parameters, "F16"),
        context=context,
        cache=Cache(kv_type=kv),
        pool=None if pool is None else int(pool * GIB),
        sessions=sessions,
    )


@pytest.mark.parametrize(("name", "level"), [(name, level) for name, row in PAGE.items() for level in row])
def test_weights_are_those_of_the_page(name: str, level: str) -> None:
    """Within 15 %, or rounded up to whole gigabytes as the page does."""
    gigabytes = weight_bytes(KNOWN[name].parameters, level) / 1e9
    assert math.ceil(gigabytes) == PAGE[name][level] or abs(gigabytes / PAGE[name][level] - 1) <= 0.15


def test_the_documentations_table_is_computed() -> None:
    lines = (Path(__file__).parents[3] / "docs" / "models.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    levels = next(row[2:] for row in rows if row[:2] == ["model", "parameters"])
    told = {row[0]: row[1:] for row in rows if row and row[0] in KNOWN}
    assert len(told) >= 10
    for name, (count, *sizes) in told.items():
        parameters = KNOWN[name].parameters
        assert count == billions(parameters)
        assert sizes == [f"{weight_bytes(parameters, level) / 1e9:.1f}" for level in levels]


@pytest.mark.parametrize("level", RELATIVE)
def test_relative_sizes_are_those_of_the_page(level: str) -> None:
    percent = 100 * weight_bytes(10**9, level) / weight_bytes(10**9, "F16")
    assert abs(percent - RELATIVE[level]) <= 4


@pytest.mark.parametrize(("kv", "share"), [("fp16", 1.0), ("fp8", 0.5), ("int8", 0.515625), ("int4", 0.265625)])
def test_a_smaller_format_of_the_kv_cache_takes_its_share(kv: KvType, share: float) -> None:
    # Of 256 numbers per head and token; int8 and int4 have two scales of four bytes beside them.
    assert planned("Llama-3.1-8B", kv=kv).token_bytes == share * planned("Llama-3.1-8B").token_bytes


@pytest.mark.parametrize(("name", "canonical"), [("f16", "fp16"), ("q8_0", "int8"), ("Q4_0", "int4"), ("FP8", "fp8")])
def test_formats_have_the_names_of_llama_cpp(name: str, canonical: str) -> None:
    assert kv_type(name) == canonical


def test_a_known_stream_takes_what_everybody_computes() -> None:
    # 2 (keys, values) x 32 layers x 8 heads x 128 numbers x 2 bytes x 8192 tokens.
    plan = planned("Llama-3.1-8B", pool=4.5)
    assert plan.stream_bytes(8192) == 1 * GIB
    assert plan.streams(8192) == 3
    assert plan.needed(3) == 4 * GIB + plan.block_bytes


def test_layers_with_a_window_stop_to_grow() -> None:
    plan = planned("Gemma-3-4B", context=131_072)
    grown = plan.stream_bytes(131_072) - plan.stream_bytes(65_536)
    assert grown == 65_536 * plan.later_token_bytes < 65_536 * plan.token_bytes


def test_a_recurrent_model_takes_the_same_for_any_length() -> None:
    plan = planned("Mamba-1.4B", pool=4)
    assert plan.stream_bytes(100) == plan.stream_bytes(10**6) == 3 * 48 * 4096 * 19 * 2
    assert plan.streams(100) == plan.streams(8192) == 4 * GIB // (48 * 4096 * 19 * 2) // 3 - 1


def test_workers_share_heads_and_layers() -> None:
    plan = planned("Llama-3.1-8B")
    for tensor, pipeline, part in ((1, 1, 1), (4, 1, 4), (1, 4, 4), (16, 1, 8), (8, 2, 16)):
        shared = replace(plan, cache=Cache(tensor=tensor, pipeline=pipeline))
        assert shared.token_bytes * part == plan.token_bytes


@given(
    name=st.sampled_from(sorted(KNOWN)),
    contexts=st.tuples(st.integers(256, 100_000), st.integers(256, 100_000)),
    sessions=st.tuples(st.integers(0, 50), st.integers(0, 50)),
    batch=st.integers(1, 8192),
)
def test_more_context_and_more_sessions_never_need_less(
    name: str, contexts: tuple[int, int], sessions: tuple[int, int], batch: int
) -> None:
    plan = replace(planned(name), cache=Cache(batch=batch))
    less, more = (replace(plan, context=pick(contexts)).needed(pick(sessions)) for pick in (min, max))
    assert less <= more


@given(
    name=st.sampled_from(sorted(KNOWN)),
    contexts=st.tuples(st.integers(256, 100_000), st.integers(256, 100_000)),
    pool=st.floats(0, 200),
)
def test_of_longer_streams_never_more_fit(name: str, contexts: tuple[int, int], pool: float) -> None:
    longer, shorter = (planned(name, context=max(contexts), pool=pool).streams(pick(contexts)) for pick in (max, min))
    assert longer is not None
    assert shorter is not None
    assert longer <= shorter


@given(
    name=st.sampled_from(sorted(KNOWN)),
    context=st.integers(256, 100_000),
    pool=st.floats(0.001, 20),
    sessions=st.none() | st.integers(1, 40),
)
def test_what_a_refusal_says_helps(name: str, context: int, pool: float, sessions: int | None) -> None:
    plan = planned(name, context=context, pool=pool, sessions=sessions)
    try:
        plan.check()
    except ModelError as error:
        refusal = error.message
    else:
        assert (plan.streams(context) or 0) >= (sessions or 0)
        return
    assert "\n" not in refusal
    larger = re.search(r"Make that (\d+\.\d\d) GiB", refusal)
    assert larger is not None
    replace(plan, pool=int(float(larger[1]) * GIB)).check()
    if shorter := re.search(r"lower --context to (\d+)", refusal):
        replace(plan, context=int(shorter[1])).check()
        # It is the longest there is.
        with pytest.raises(ModelError):
            replace(plan, context=int(shorter[1]) + 1).check()


def test_a_refusal_has_the_numbers() -> None:
    with pytest.raises(ModelError) as refused:
        planned("Llama-3.1-8B", context=131_072, pool=4).check()
    assert refused.value.message == (
        "A context of 131072 tokens needs 16.00 GiB of KV cache in 16 bits, and 4.00 GiB are set aside, which hold"
        " 32752 tokens. Make that 16.01 GiB (--kv-cache-gb, or a larger GPU), or lower --context to 32752, or choose a"
        " smaller --kv-cache-type."
    )
    with pytest.raises(ModelError) as refused:
        planned("Llama-3.1-8B", pool=4, sessions=10, kv="fp8").check()
    assert refused.value.param == "sessions"
    assert refused.value.message == (
        "10 streams of 8192 tokens and a question beside them need 5.50 GiB of KV cache in fp8, and 4.00 GiB are set"
        " aside, which hold 6. Make that 5.51 GiB (--kv-cache-gb, or a larger GPU), or lower --context to 5952."
    )


def test_weights_that_are_too_large_are_refused() -> None:
    plan = replace(planned("Llama-3.1-70B", pool=4), memory=80 * GIB)
    with pytest.raises(ModelError, match=r"take 131\.42 GiB and 4\.00 GiB are set aside .* 80\.00 GiB of memory"):
        plan.check()
    # Two workers have half of them each.
    replace(plan, cache=Cache(tensor=2)).check()


def test_a_plan_says_what_it_knows() -> None:
    assert planned("Llama-3.1-8B").sentence() == (
        "Llama-3.1-8B: 8.03 B parameters, 14.96 GiB of weights; KV cache in 16 bits: 128.0 KiB per token, 1.00 GiB for"
        " a stream of 8192 tokens"
    )
    assert planned("Mamba-1.4B", pool=4).sentence() == (
        "Mamba-1.4B: 1.37 B parameters, 2.56 GiB of weights; 21.4 MiB of recurrent state for a stream, however long;"
        " 4.00 GiB hold 190 of these beside a question"
    )


def test_a_gpu_has_room_for_what_its_weights_leave() -> None:
    assert gpu_pool(80 * GIB, 16 * GIB) == int(80 * GIB * 0.92) - 16 * GIB - 3 * GIB // 2
    assert gpu_pool(8 * GIB, 16 * GIB) == 0
