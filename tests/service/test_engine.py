"""One engine on two machines: a rank here, and one that `askahead engine` runs in a network of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path

import pytest

from service.engine import engine_options, run_here
from service.settings import Settings
from streams.engine.base import Priority, Sampling
from streams.engine.vllm import VllmEngine
from streams.errors import EngineUnavailable, InvalidInput
from streams.models import resolve
from tests.engine.test_engine import data
from tests.machines import second_machine
from tests.servers import REAL

SECONDS = 60.0


async def ask(engine: VllmEngine, prompt: list[int], rank: int) -> tuple[list[int], int]:
    """The answer's tokens, and how many of the prompt's were cached."""
    pieces = [p async for p in engine.generate(prompt, Sampling(max_tokens=4), Priority.FOREGROUND, rank)]
    return [token for piece in pieces for token in piece.token_ids], pieces[-1].cached_tokens


@pytest.mark.timeout(600)
async def test_a_rank_on_another_machine(model_path: Path, tmp_path: Path) -> None:
    with second_machine() as (there, address):
        settings = Settings(
            model=str(model_path),
            context=1024,
            dtype="float32",
            kv_cache_gb=0.125,
            threads=1,
            data_dir=tmp_path,
            data_parallel_size=2,
            data_parallel_size_local=1,
            data_parallel_address=address,
        )
        names = settings.model_fields_set
        flags = [f"--{name.replace('_', '-')}={getattr(settings, name)}" for name in sorted(names)]
        log = tmp_path / "log"
        with log.open("wb") as out:
            other = subprocess.Popen(
                [*there, REAL[0], "engine", "--data-parallel-start-rank=1", *flags], stdout=out, stderr=out
            )
        try:
            options = engine_options(settings, resolve(settings.model, data_dir=tmp_path, progress=print))
            engine = await asyncio.to_thread(VllmEngine.load, options)
            try:
                stream = data(engine, 7, 320)
                prompt = [*stream, *engine.tokenizer.encode("\nThe number after these is")]
                held = engine.hold(Priority.INGEST, 1)
                await held.extend(stream)
                far, cached = await ask(engine, prompt, 1)
                near, nothing = await ask(engine, prompt, 0)
                assert (far, cached, nothing) == (near, len(stream), 0)
                os.kill(other.pid, signal.SIGKILL)
                async with asyncio.timeout(SECONDS):
                    while not engine.dead:
                        await asyncio.sleep(0.05)
                with pytest.raises(EngineUnavailable):
                    await ask(engine, prompt, 1)
                await held.release()
            finally:
                await engine.close()
        except BaseException:
            print(log.read_text())
            raise
        finally:
            other.kill()
            other.wait()


@pytest.mark.parametrize(
    "settings",
    [
        Settings(data_parallel_size=2),
        Settings(data_parallel_size=1, data_parallel_address="10.0.0.1"),
        Settings(data_parallel_size=3, data_parallel_size_local=3, data_parallel_address="10.0.0.1"),
    ],
)
def test_ranks_that_no_server_waits_for_are_refused(settings: Settings) -> None:
    with pytest.raises(InvalidInput, match="--data-parallel-address"):
        run_here(settings, 1)
