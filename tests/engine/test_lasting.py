"""The garbage collector does not look through what lasts as long as its process."""

from __future__ import annotations

import gc
import multiprocessing
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection

import pytest

from streams.engine.lasting import lasting


@pytest.fixture
def thawed() -> Iterator[None]:
    """Nothing is kept away from the collector yet."""
    gc.unfreeze()
    yield
    gc.enable()


@pytest.mark.usefixtures("thawed")
def test_garbage_is_collected_again_afterwards() -> None:
    with lasting():
        assert not gc.isenabled()
    assert gc.isenabled()


@pytest.mark.usefixtures("thawed")
def test_a_collector_that_was_off_stays_so() -> None:
    gc.disable()
    with lasting():
        pass
    assert not gc.isenabled()


@pytest.mark.usefixtures("thawed")
def test_garbage_is_collected_again_after_a_load_that_failed() -> None:
    with pytest.raises(RuntimeError), lasting():
        raise RuntimeError
    assert gc.isenabled()


@pytest.mark.usefixtures("thawed")
def test_only_what_the_first_load_leaves_lasts() -> None:
    class Stream:
        pass

    with lasting():
        pass
    stream = Stream()
    with lasting():
        pass
    assert any(other is stream for other in gc.get_objects())


def test_a_process_ends_without_words() -> None:
    script = "from streams.engine.lasting import lasting\nwith lasting():\n    import triton._C.libtriton"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout + ended.stderr == ""


def tell(connection: Connection) -> None:
    """What runs in a child process: whether garbage is collected, before vLLM is imported."""
    from streams.engine import core_process

    connection.send((core_process.__name__, gc.isenabled(), "vllm" in sys.modules))


@pytest.mark.parametrize(("name", "collects"), [("EngineCore", False), ("EngineCore_DP1", False), ("another", True)])
def test_nothing_is_collected_while_an_engines_process_imports_vllm(name: str, collects: bool) -> None:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=tell, args=(there,), name=name)
    process.start()
    try:
        assert here.poll(60)
        assert here.recv() == ("streams.engine.core_process", collects, False)
    finally:
        process.join(60)


@pytest.mark.usefixtures("vllm_engine")
async def test_an_engine_lasts() -> None:
    assert gc.isenabled()
    assert gc.get_freeze_count() > 100_000
