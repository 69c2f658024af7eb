"""What of a model's options llama.cpp cannot do. Pure."""

from __future__ import annotations

from streams.engine.recurrent.child import Loaded
from streams.engine.recurrent.model import MAX_SEQUENCES
from streams.engine.vllm_start import EngineOptions, Parallel
from streams.errors import ModelError
from streams.models.plan import gib


def check_options(options: EngineOptions) -> None:
    """Refuse what would be passed over in silence, and what no memory would make possible.

    Raises:
        ModelError: the message names the flag.
    """
    for asked, param, why in (
        (options.parallel != Parallel(), "data_parallel_size", "a recurrent model runs in one process"),
        (options.kv_cache_type not in ("auto", "fp16"), "kv_cache_type", "a recurrent model has states, no KV cache"),
        (options.quantization, "quantization", "a GGUF file's weights stay in the format that they have"),
        (options.cpu_offload_gb, "cpu_offload_gb", "a recurrent model is in the machine's memory already"),
        (options.dtype != "auto", "dtype", "a GGUF file's weights stay in the format that they have"),
    ):
        if asked:
            raise ModelError(f"Leave out --{param.replace('_', '-')}: {why}.", param=param)
    if options.sessions is not None and options.sessions > MAX_SEQUENCES // 2:
        raise ModelError(
            f"A recurrent model has at most {MAX_SEQUENCES} states, of which half are for streams. Set --sessions to"
            f" {MAX_SEQUENCES // 2} or less, and start more servers for more streams.",
            param="sessions",
        )


def too_few(sessions: int, memory: int, loaded: Loaded) -> ModelError:
    """Fewer streams have a state than are to.

    Args:
        sessions: streams that are to.
        memory: bytes for states.
        loaded: what they hold.
    """
    needed, streams = 2 * sessions * loaded.state_bytes, loaded.sequences // 2
    return ModelError(
        f"{sessions} streams and as many states for questions beside them need {gib(needed)} of states, and"
        f" {gib(memory)} are set aside, which hold {streams}. Make that {-(-needed * 1000 // 2**30) / 1000:.3f} GiB"
        f" (--kv-cache-gb), or lower --sessions to {streams}.",
        param="sessions",
    )
