"""``python -m bench.floor PORT MODEL``: what any server over this engine costs at least.

``AsyncLLM``, started as the product starts it and called directly: a request with streaming input holds the stream, and
questions are ordinary requests over its prefix. Times are taken around the call, inside the process; ``/served`` is the
same behind the smallest handler that streams it, and timed by whoever asks.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
from aiohttp import web

from bench import machine
from streams.engine.tokenizer import HfTokenizer
from streams.engine.vllm_start import EngineOptions, start

_PLACE = "Q7G3KPLACE"


class Floor:
    """One stream over an engine."""

    def __init__(self, llm: Any, tokenizer: HfTokenizer, name: str) -> None:
        self._llm = llm
        self._tokenizer = tokenizer
        self._name = name
        head, _, tail = self._tokenizer.render([{"role": "user", "content": _PLACE}], {}).partition(_PLACE)
        self._head = self._tokenizer.encode_markup(head)
        self._tail = self._tokenizer.encode_markup(tail)
        self._tokens: list[int] = []
        self._chunks: asyncio.Queue[list[int]] = asyncio.Queue()
        self._held: Any = None
        self._serial = itertools.count()

    async def begin(self, lines: list[str]) -> dict[str, float]:
        """Hold a new stream."""
        await self.end()
        self._chunks, self._tokens = asyncio.Queue(), []
        self._held = self._request(self._feed(), 1)
        return await self._read([*self._head, *self._data(lines)])

    async def tick(self, lines: list[str]) -> dict[str, float]:
        """Let the held request read more."""
        return await self._read(self._data(lines))

    async def ask(self, question: str, max_tokens: int) -> dict[str, float]:
        """Ask over the held prefix."""
        prompt = [*self._tokens, *self._tokenizer.encode(question), *self._tail]
        started = time.perf_counter()
        first = 0.0
        async for output in self._request(_tokens_input(prompt), max_tokens):
            first = first or time.perf_counter() - started
            cached = output.num_cached_tokens
        return {"first": first, "whole": time.perf_counter() - started, "prompt": len(prompt), "cached": cached}

    async def served(self, request: web.Request) -> web.StreamResponse:
        """The same for a client: each piece is an event, and nothing is checked, counted or bounded."""
        body = orjson.loads(await request.read())
        prompt = [*self._tokens, *self._tokenizer.encode(body["prompt"]), *self._tail]
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        async for output in self._request(_tokens_input(prompt), body["max_tokens"]):
            await response.write(b"data: " + orjson.dumps({"text": output.outputs[0].text}) + b"\n\n")
        usage = {"prompt_tokens": len(prompt), "prompt_tokens_details": {"cached_tokens": output.num_cached_tokens}}
        await response.write(b"data: " + orjson.dumps({"usage": usage}) + b"\n\ndata: [DONE]\n\n")
        return response

    async def prefill(self, lines: list[str]) -> dict[str, float]:
        """Read a prompt that nobody has seen, in one request: seconds until its first token."""
        prompt = [*self._head, *self._data(lines)]
        started = time.perf_counter()
        async for _ in self._request(_tokens_input(prompt), 1):
            pass
        return {"seconds": time.perf_counter() - started, "tokens": len(prompt)}

    async def end(self) -> dict[str, float]:
        """Let the stream go."""
        if self._held is not None:
            await self._held.aclose()
            self._held = None
        return {}

    async def _read(self, tokens: list[int]) -> dict[str, float]:
        started = time.perf_counter()
        self._chunks.put_nowait(tokens)
        await anext(self._held)
        self._tokens += tokens
        return {"seconds": time.perf_counter() - started, "tokens": len(tokens)}

    async def _feed(self) -> AsyncIterator[Any]:
        from vllm.engine.protocol import StreamingInput

        while True:
            yield StreamingInput(prompt=_tokens_input(await self._chunks.get()))

    def _data(self, lines: list[str]) -> list[int]:
        return [token for line in lines for token in self._tokenizer.encode(f"{line}\n")]

    def _request(self, prompt: Any, max_tokens: int) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            max_tokens=max_tokens, temperature=0, ignore_eos=True, output_kind=RequestOutputKind.DELTA
        )
        return self._llm.generate(prompt, params, f"{self._name}-{next(self._serial)}")


def _tokens_input(tokens: list[int]) -> Any:
    from vllm.inputs import tokens_input

    return tokens_input(tokens)


async def _app(model: Path, scratch: Path) -> web.Application:
    options = EngineOptions(
        model=model, name="model", context=machine.CONTEXT, dtype=machine.dtype(), kv_cache_bytes=2**30
    )
    llm = await asyncio.to_thread(start, options, scratch)
    tokenizer = HfTokenizer.load(model)
    floors: dict[str, Floor] = {}

    async def answer(request: web.Request) -> web.StreamResponse:
        name, call = request.match_info["stream"], request.match_info["call"]
        if name not in floors:
            floors[name] = Floor(llm, tokenizer, f"floor-{name}")
        floor = floors[name]
        if call == "served":
            return await floor.served(request)
        calls = {call.__name__: call for call in (floor.begin, floor.tick, floor.ask, floor.prefill, floor.end)}
        return web.json_response(await calls[call](**await request.json()))

    async def healthy(_: web.Request) -> web.Response:
        return web.Response()

    async def close(_: web.Application) -> None:
        llm.shutdown()

    app = web.Application()
    app.add_routes([web.post("/{stream}/{call}", answer), web.get("/health", healthy)])
    app.on_cleanup.append(close)
    return app


if __name__ == "__main__":
    with TemporaryDirectory() as directory:
        app = _app(Path(sys.argv[2]), Path(directory))
        web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
