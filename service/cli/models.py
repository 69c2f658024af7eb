"""``askahead models``: what models need, without loading one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, get_args

import orjson
import typer
from rich.console import Console
from rich.table import Table

from service.settings import ENV_PREFIX
from streams.errors import AskaheadError, InvalidInput, short
from streams.models.describe import Described, describe
from streams.models.plan import BITS, GIB, Cache, KvType, Plan, billions, gib, gpu_pool, kv_type, weight_bytes

# llama.cpp's: a stream has one, and questions have as many as all streams.
_STATES = 2
# A model without a trained length is planned for this many tokens.
_ENDLESS = 32_768
_LENGTHS = (1024, 4096, 16_384, 65_536)

models = typer.Typer(help="What models need, without loading one.", no_args_is_help=True)


@models.callback()
def main() -> None:
    """What models need, without loading one."""


@models.command()
def plan(
    model: Annotated[
        str | None,
        typer.Argument(
            help="What --model of the server takes: a directory, a .gguf file, or a name on the Hugging Face hub, of"
            " which only the config or a header is fetched; :LEVEL behind it picks one of several GGUF files. Unset:"
            " the server's default.",
            envvar=f"{ENV_PREFIX}MODEL",
            show_default=False,
        ),
    ] = None,
    context: Annotated[
        int, typer.Option(min=0, max=1_048_576, help="Longest stream, in tokens. 0: the model's trained length.")
    ] = 0,
    sessions: Annotated[
        int | None,
        typer.Option(min=1, max=1_000_000, help="Streams of that length that must fit.", show_default=False),
    ] = None,
    kv_cache_type: Annotated[
        str, typer.Option(help="Number format of the KV cache: fp16, fp8, int8 or int4.")
    ] = "fp16",
    gpu_memory: Annotated[
        float | None,
        typer.Option(min=0.1, max=65_536, help="Memory of the GPU, in GiB: how many streams fit?", show_default=False),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option(
            help="Branch, tag or commit of a model on the hub. Unset: its main branch.",
            envvar=f"{ENV_PREFIX}REVISION",
            show_default=False,
        ),
    ] = None,
    models_dir: Annotated[
        Path | None,
        typer.Option(
            help="Directory for models, as the server has it.", envvar=f"{ENV_PREFIX}MODELS_DIR", show_default=False
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="As JSON, all sizes in bytes.")] = False,
) -> None:
    """Tell what a model's weights and streams need, and how many streams fit. Exit code 1: too few."""
    try:
        described = describe(model, progress=_say, revision=revision or None, models_dir=models_dir)
        made = _plan(described, context, sessions, kv_cache_type, gpu_memory)
        if json:
            sys.stdout.buffer.write(orjson.dumps(_values(described, made), option=orjson.OPT_INDENT_2) + b"\n")
        else:
            _show(described, made, Console())
        made.check()
    except AskaheadError as error:
        print(f"askahead: {error.message}", file=sys.stderr)
        raise SystemExit(1) from None


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)


def _plan(described: Described, context: int, sessions: int | None, kind: str, gpu_memory: float | None) -> Plan:
    chosen = kv_type(kind)
    types: tuple[KvType, ...] = get_args(KvType)
    known = next((name for name in types if name == chosen), None)
    if known is None:
        raise InvalidInput(f"--kv-cache-type: must be fp16, fp8, int8 or int4, not {short(kind)!r}")
    if 0 < context < 256:
        raise InvalidInput("--context: must be 0 (the model's trained length) or at least 256 tokens")
    shape = described.shape
    weights = weight_bytes(shape.parameters, "F16")
    if described.recurrent:
        _refuse_what_llama_has_not(known, gpu_memory)
        weights = described.stored or weights
    elif described.stored is not None and not described.packed:
        weights = min(weights, described.stored)
    memory = None if gpu_memory is None else int(gpu_memory * GIB)
    return Plan(
        name=described.name,
        shape=shape,
        weights=weights,
        context=context or shape.context or _ENDLESS,
        cache=Cache(kv_type=known, states=_STATES) if described.recurrent else Cache(kv_type=known),
        pool=None if memory is None else gpu_pool(memory, weights),
        memory=memory,
        sessions=sessions,
    )


def _refuse_what_llama_has_not(kind: KvType, gpu_memory: float | None) -> None:
    if kind not in ("auto", "fp16"):
        raise InvalidInput("Leave out --kv-cache-type: a recurrent model has states, no KV cache.")
    if gpu_memory is not None:
        raise InvalidInput("Leave out --gpu-memory: a recurrent model in a GGUF file runs on the CPU.")


def _lengths(made: Plan) -> list[int]:
    return [*(length for length in _LENGTHS if length < made.context), made.context]


def _needed(made: Plan) -> int:
    """Bytes of weights and KV cache together."""
    return made.weights + made.needed(made.sessions or 1)


def _values(described: Described, made: Plan) -> dict[str, Any]:
    shape = made.shape
    return {
        "model": described.name,
        "architecture": shape.model_type,
        "parameters": shape.parameters,
        "layers": shape.layers,
        "hidden_size": shape.hidden,
        "attention_heads": shape.heads,
        "kv_heads": shape.kv_heads,
        "trained_context": shape.context,
        "context": made.context,
        "kv_cache_type": None if described.recurrent else made.cache.kv_type,
        "weights": {
            "stored": described.stored,
            "loaded": made.weights,
            "formats": {level: weight_bytes(shape.parameters, level) for level in BITS},
        },
        "kv_cache": {
            "token": made.token_bytes,
            "token_beyond_windows": made.later_token_bytes,
            "streams": [
                {"tokens": length, "bytes": made.stream_bytes(length), "fit": made.streams(length)}
                for length in _lengths(made)
            ],
            "available": made.pool,
        },
        "sessions": made.sessions or 1,
        "needed": _needed(made),
    }


def _show(described: Described, made: Plan, console: Console) -> None:
    shape = made.shape
    heads = f", {shape.heads} heads over {shape.kv_heads} of keys and values" if shape.heads else ""
    trained = f", trained for {shape.context} tokens" if shape.context else ", of no set length"
    console.print(
        f"{described.name} ({shape.model_type}): {billions(shape.parameters)} parameters, {shape.layers} layers of"
        f" {shape.hidden}{heads}{trained}",
        highlight=False,
        markup=False,
    )
    weights = Table()
    weights.add_column("weights in")
    weights.add_column("GiB", justify="right")
    for level in BITS:
        weights.add_row(level, f"{weight_bytes(shape.parameters, level) / GIB:.2f}")
    if described.stored is not None:
        weights.add_row("as stored", f"{described.stored / GIB:.2f}", style="dim")
    weights.add_row("planned with", f"{made.weights / GIB:.2f}", style="bold")
    console.print(weights)
    kept = "States in fp32" if described.recurrent else f"KV cache in {made.cache.kv_type}"
    console.print(f"{kept}: {_rate(made)}", highlight=False)
    streams = Table()
    streams.add_column("tokens in a stream", justify="right")
    streams.add_column("MiB", justify="right")
    if made.pool is not None:
        streams.add_column("streams that fit", justify="right")
    for length in _lengths(made):
        fit = [] if made.pool is None else [str(made.streams(length))]
        streams.add_row(str(length), f"{made.stream_bytes(length) / 2**20:.1f}", *fit)
    console.print(streams)
    wanted = made.sessions or 1
    console.print(
        f"{gib(_needed(made))} for the weights, {wanted} stream{'s' * (wanted > 1)} of {made.context} tokens and a"
        f" question beside {'them' if wanted > 1 else 'it'}"
        + ("" if made.pool is None else f"; the GPU leaves {gib(made.pool)} for the KV cache"),
        highlight=False,
        markup=False,
    )


def _rate(made: Plan) -> str:
    if not made.token_bytes:
        return "a state of the same size for any stream"
    first, later = made.token_bytes / 1024, made.later_token_bytes / 1024
    return f"{first:.1f} KiB per token" + ("" if first == later else f", {later:.1f} beyond the windows")
