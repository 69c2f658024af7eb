"""What replaces vLLM's operators on a CPU, against them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import vllm._custom_ops as ops
from hypothesis import given
from hypothesis import strategies as st
from vllm.config import CompilationConfig, DeviceConfig, VllmConfig, set_current_vllm_config
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.platforms import current_platform

from streams.engine.operators import call_directly, computes, few_sizes, fewer_operators, rounded

TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}


@pytest.fixture(scope="module", autouse=True)
def _eager() -> Iterator[None]:
    current_platform.import_kernels()
    config = VllmConfig(
        device_config=DeviceConfig("cpu"), compilation_config=CompilationConfig(mode=0, custom_ops=["all"])
    )
    with set_current_vllm_config(config):
        yield


def norms(size: int, dtype: torch.dtype, **options: object) -> tuple[RMSNorm, RMSNorm]:
    """Ours and vLLM's, with the same weights."""
    with fewer_operators():
        ours = RMSNorm(size, dtype=dtype, **options)
    theirs = RMSNorm(size, dtype=dtype, **options)
    assert type(ours) is not type(theirs)
    if theirs.has_weight:
        ours.weight.data = torch.randn(size).to(dtype)
        theirs.weight.data = ours.weight.data.clone()
    return ours, theirs


@given(
    tokens=st.integers(0, 70),
    size=st.integers(1, 20).map(lambda n: 16 * n),
    dtype=st.sampled_from(sorted(TOLERANCES, key=str)),
    added=st.booleans(),
    strided=st.booleans(),
)
@torch.inference_mode()
def test_it_computes_what_vllms_layer_does(
    tokens: int, size: int, dtype: torch.dtype, added: bool, strided: bool
) -> None:
    ours, theirs = norms(size, dtype)
    wide = torch.randn(tokens, size * (1 + strided)).to(dtype)
    x = wide[:, :size]
    residual = torch.randn(tokens, size).to(dtype) if added else None
    found = ours(x.clone() if not strided else x, None if residual is None else residual.clone())
    wanted = theirs(x.clone(), None if residual is None else residual.clone())
    close = {"atol": TOLERANCES[dtype], "rtol": TOLERANCES[dtype]}
    if residual is None:
        torch.testing.assert_close(found, wanted, **close)
    else:
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, **close)


@pytest.mark.parametrize("dtype", TOLERANCES)
@torch.inference_mode()
def test_a_tokens_norm_is_the_same_beside_any_others(dtype: torch.dtype) -> None:
    ours, _ = norms(576, dtype)
    x = torch.randn(50, 576).to(dtype)
    together = ours(x.clone())
    for row in range(50):
        assert torch.equal(ours(x[row : row + 1].clone())[0], together[row])


@pytest.mark.parametrize("options", [{"has_weight": False}, {"var_hidden_size": 64}])
@torch.inference_mode()
def test_norms_of_another_kind_are_left_to_vllm(options: dict[str, object]) -> None:
    ours, theirs = norms(128, torch.float32, **options)
    x = torch.randn(3, 128)
    assert torch.equal(ours(x.clone()), theirs(x.clone()))


def test_rows_of_other_forms_are_left_to_vllm() -> None:
    assert computes(torch.zeros(2, 64))
    assert not computes(torch.zeros(2, 128)[:, :64])
    assert not computes(torch.zeros(2, 48))
    assert not computes(torch.zeros(2, 64, dtype=torch.float64))


def test_layers_made_outside_are_vllms() -> None:
    with fewer_operators():
        pass
    assert type(RMSNorm(64)) is RMSNorm


def test_attention_is_called_directly() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model[1].use_direct_call = False
    call_directly(model)
    assert model[1].use_direct_call
    assert not hasattr(model[0], "use_direct_call")


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> Callable[..., torch.Tensor]:
    """vLLM's product; what is called now is ours."""
    theirs: Callable[..., torch.Tensor] = ops.onednn_mm
    monkeypatch.setattr(ops, "onednn_mm", theirs)
    few_sizes()
    assert ops.onednn_mm is not theirs
    return theirs


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(0,), (1,), (5,), (8,), (9,), (100,), (3, 7)], ids=str)
@torch.inference_mode()
def test_products_of_few_sizes_are_vllms(
    theirs: Callable[..., torch.Tensor], shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    handler = ops.create_onednn_mm(torch.randn(64, 96).to(dtype).t(), 32)
    x, bias = torch.randn(*shape, 96).to(dtype), torch.randn(64).to(dtype)
    for added in (None, bias):
        found = ops.onednn_mm(handler, x, added)
        torch.testing.assert_close(found, theirs(handler, x, added), atol=1e-4, rtol=TOLERANCES[dtype])
        assert found.is_contiguous()


@given(st.integers(0, 10**6))
def test_sizes_are_few_and_little_larger(rows: int) -> None:
    assert rows <= rounded(rows) <= max(2 * rows, 8 if rows else 0)
    assert rounded(rounded(rows)) == rounded(rows) >= rounded(max(rows - 1, 0))
    if rows > 64:
        assert rounded(rows) < 1.25 * rows


def test_there_are_two_dozen_sizes_up_to_a_steps_tokens() -> None:
    assert len({rounded(rows) for rows in range(1, 513)}) == 23
