"""Settings of the model and of the engine that runs it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ValidationInfo, field_validator

from service.settings.fields import panel
from streams.engine.chat_template import template_text
from streams.models.plan import kv_type

_model, _parallel = panel("Model"), panel("Parallelism")


class EngineSettings(BaseModel):
    """Which model, in which format, on which processors."""

    model: str | None = _model(
        None,
        "Model to serve: a name on the Hugging Face hub, or a path to a directory or a .gguf file. :LEVEL behind it"
        " picks one of several GGUF files, as in org/name:Q4_K_M. Unset: a small instruct model that runs anywhere.",
        min_length=1,
    )
    revision: str | None = _model(
        None,
        "Branch, tag or commit of a model on the hub. Unset: its main branch; only a commit is the same for ever.",
        min_length=1,
        max_length=255,
    )
    context: int | None = _model(
        None,
        "Longest prompt plus completion, in tokens. 0 or unset: the length the model was trained for. Less needs less"
        " memory for the KV cache.",
        ge=0,
        le=1_048_576,
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = _model(
        "auto", "Number format of weights and KV cache. auto: what is fastest on this machine."
    )
    kv_cache_gb: float | None = _model(
        None,
        "Memory for the KV cache of each rank, in GiB; bounds how many tokens stay resident over its sessions. Unset:"
        " sized from free memory.",
        gt=0,
        le=65_536,
        allow_inf_nan=False,
    )
    kv_cache_type: Annotated[Literal["auto", "fp16", "fp8", "int8", "int4"], BeforeValidator(kv_type)] = _model(
        "auto",
        "Number format of the KV cache; a smaller one holds more tokens. auto, fp16: that of the weights. fp8: GPUs,"
        " and CPUs with AVX-512 or AMX. int8, int4: GPUs. f16, q8_0 and q4_0 are other names of fp16, int8 and int4.",
    )
    sessions: int | None = _model(
        None,
        "Streams of a whole context that must fit into the KV cache beside a question; if they do not, the server says"
        " what would make room and ends. Unset: it serves however few fit.",
        ge=1,
        le=1_000_000,
    )
    quantization: str | None = _model(
        None,
        "Number format to load the weights in: int8, int4, or a name of vLLM's --quantization, such as fp8, awq or"
        " gptq. Unset: as the checkpoint says.",
        min_length=1,
        max_length=64,
    )
    cpu_offload_gb: float = _model(
        0.0,
        "Weights, in GiB per GPU, that stay in the machine's memory, for a model that the GPU has no room for; each"
        " step fetches them anew.",
        ge=0,
        le=65_536,
        allow_inf_nan=False,
    )
    threads: int | None = _model(
        None,
        "CPU threads of each rank. Unset: its share of the cores this process may use, all of them if it is the only"
        " one.",
        ge=1,
        le=1024,
    )
    engine_nice: int = _model(
        19,
        "How far the engine gives way, on a CPU, to the server and to other programs once it is loaded, as of nice(1):"
        " at 19 pushes are acknowledged and polls answered first, at 0 the engine and they take turns.",
        ge=0,
        le=19,
    )
    chat_template: str | None = _model(
        None,
        "Chat template in place of the model's own, in Jinja: its text, or the path of a file. Unset: the model's, or a"
        " plain one with the names of the roles for a model without.",
        min_length=1,
        repr=False,
    )
    tool_parser: str | None = _model(
        None,
        "How the model writes tool calls: a name of vLLM's --tool-call-parser, such as hermes. none: it makes none."
        " Unset: told from the chat template.",
        min_length=1,
    )
    reasoning_parser: str | None = _model(
        None,
        "How the model writes its reasoning: a name of vLLM's --reasoning-parser, such as qwen3. none: it has none."
        " Unset: told from the chat template.",
        min_length=1,
    )
    slice_seconds: float = _model(
        0.3,
        "Longest time, in seconds, the engine reads pushed data at a stretch: a question that arrives meanwhile waits"
        " this long at most.",
        ge=0.01,
        le=10,
    )
    slice_seconds_busy: float = _model(
        0.1,
        "The same while questions are waiting or running, in seconds; shorter, since each slice delays them.",
        ge=0.01,
        le=10,
    )
    slice_tokens_max: int = _model(
        1024,
        "Most tokens in one slice of reading, whatever the time allows; bounds a wrong estimate of speed.",
        ge=32,
        le=65_536,
    )
    data_parallel_size: int = _parallel(
        1,
        "Ranks: copies of the model, each with a KV cache of its own. A session stays on one of them, so more ranks"
        " serve more sessions at once.",
        ge=1,
        le=1024,
    )
    tensor_parallel_size: int = _parallel(
        1,
        "Workers of each rank that share every layer, for a model that one GPU cannot hold or is too slow for. Must"
        " divide the model's attention heads.",
        ge=1,
        le=1024,
    )
    pipeline_parallel_size: int = _parallel(
        1, "Workers of each rank that share its layers among each other.", ge=1, le=1024
    )
    data_parallel_address: str | None = _parallel(
        None,
        "Address of the server's machine as the others reach it. The engine's traffic is neither encrypted nor"
        " authenticated: let it be one of a network of their own. Unset: loopback.",
        min_length=1,
    )
    data_parallel_size_local: int | None = _parallel(
        None,
        "Ranks on this machine; other machines run `askahead engine` for the rest. Unset: all of them.",
        ge=0,
        le=1024,
    )
    data_parallel_rpc_port: int | None = _parallel(
        None,
        "Port at which the server waits for the ranks of other machines. Unset: 29550.",
        ge=1,
        le=65_535,
    )
    data_parallel_backend: Literal["mp", "ray"] = _parallel(
        "mp",
        "Who starts the ranks of other machines. mp: `askahead engine` there. ray: the Ray cluster that the server"
        " runs in.",
    )

    @field_validator("context")
    @classmethod
    def _context_is_useful(cls, value: int | None) -> int | None:
        if value is not None and 0 < value < 256:
            raise ValueError("must be 0 (the model's trained length) or at least 256 tokens")
        return value

    @field_validator("chat_template")
    @classmethod
    def _template_is_one(cls, value: str | None) -> str | None:
        return None if value is None else template_text(value)

    @field_validator("data_parallel_size_local")
    @classmethod
    def _other_ranks_find_the_server(cls, value: int | None, info: ValidationInfo) -> int | None:
        ranks = info.data.get("data_parallel_size", 1)
        if value is not None and value > ranks:
            raise ValueError(f"must be at most --data-parallel-size, which is {ranks}")
        if value is not None and value < ranks and info.data.get("data_parallel_address") is None:
            raise ValueError("leaves ranks to other machines, which need --data-parallel-address to find the server")
        return value
