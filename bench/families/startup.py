"""From the start of the process until it is ready, and the memory it has then, against ``vllm serve``."""

from __future__ import annotations

from bench.rows import Result, at_most, compared
from bench.servers import Fleet

_MIB = 2**20
_FLAGS = {"askahead": ("--kv-cache-gb", "1")}


async def measure(fleet: Fleet, full: bool) -> Result:
    """Both in turn, nothing else running, with a KV cache of 1 GiB each."""
    rounds = 5 if full else 1
    seconds: dict[str, list[float]] = {"askahead": [], "vllm": []}
    memory: dict[str, list[float]] = {"askahead": [], "vllm": []}
    for number in range(rounds):
        for name in ("vllm", "askahead") if number % 2 else ("askahead", "vllm"):
            await fleet.keep()
            server = await fleet.fresh(name, *_FLAGS.get(name, ()))
            seconds[name].append(server.ready_seconds)
            memory[name].append(server.memory() / _MIB)
    await fleet.keep()
    return Result(
        [
            compared("time to ready", seconds["askahead"], seconds["vllm"], "s", "vllm serve", at_most(1.1)),
            compared("memory when ready", memory["askahead"], memory["vllm"], "MiB", "vllm serve"),
        ],
        rounds=rounds,
    )
