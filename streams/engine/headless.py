"""Ranks without a server: what a machine runs for the engine of a server on another one."""

from __future__ import annotations

import logging
import signal
import threading
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

from streams.engine.dialect import VllmDialect
from streams.engine.leash import Leash
from streams.engine.lifeline import outlive
from streams.engine.tokenizer import HfTokenizer
from streams.engine.vllm_start import EngineOptions, configured, sentence
from streams.errors import AskaheadError, EngineUnavailable, ModelError

log = logging.getLogger(__name__)

_POLL_SECONDS = 1.0


def run_ranks(options: EngineOptions, first: int) -> None:
    """Run this machine's ranks until SIGTERM or Ctrl-C. Call it in the main thread.

    Args:
        options: exactly the server's, except for how many ranks are local.
        first: number of the first rank here; the server has rank 0.

    Raises:
        EngineUnavailable: a rank has died, or the server is gone. Ranks cannot change their server: start them anew.
        ModelError: the model cannot be loaded this way.
    """
    ended = threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        ended.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    parallel = options.parallel
    if parallel.local is None:
        options = replace(options, parallel=replace(parallel, local=parallel.data - first))
    with TemporaryDirectory(prefix="askahead-engine-", ignore_cleanup_errors=True) as scratch:
        _run(options, first, Path(scratch), ended)


def _run(options: EngineOptions, first: int, scratch: Path, ended: threading.Event) -> None:
    try:
        manager, address, port = _start(options, first, scratch)
    except AskaheadError:
        raise
    except Exception as exc:
        raise ModelError(f"The model in {options.model} cannot be loaded: {sentence(exc)}") from exc
    gone = threading.Event()
    leash = Leash([process.pid for process in manager.processes])
    log.info("%d rank(s) from %d on for the server at %s:%d", len(manager.processes), first, address, port)

    def follow() -> None:
        outlive(address, port, ended)
        gone.set()

    threading.Thread(target=follow, name="follow-server", daemon=True).start()
    died: object = None
    while not (died or ended.is_set() or gone.is_set()):
        died = wait(manager.sentinels(), timeout=_POLL_SECONDS)
    manager.shutdown()
    leash.release()
    if ended.is_set():
        return
    raise EngineUnavailable("A rank has died." if died else "The server is gone; start again to serve its next run.")


def _start(options: EngineOptions, first: int, scratch: Path) -> tuple[Any, str, int]:
    """vLLM's manager of the ranks' processes, and where they look for the server."""
    dialect = VllmDialect.load(
        HfTokenizer.load(options.model, options.chat_template), options.tool_parser, options.reasoning_parser
    )
    with configured(options, scratch, dialect.reasoning_parser, headless_from=first) as config:
        from vllm.utils.network_utils import get_tcp_uri
        from vllm.v1.engine.utils import CoreEngineProcManager
        from vllm.v1.executor import Executor

        ranks = config.parallel_config
        address, port = ranks.data_parallel_master_ip, ranks.data_parallel_rpc_port
        manager = CoreEngineProcManager(
            local_engine_count=ranks.data_parallel_size_local,
            start_index=ranks.data_parallel_rank,
            local_start_index=0,
            vllm_config=config,
            local_client=False,
            handshake_address=get_tcp_uri(address, port),
            executor_class=Executor.get_class(config),
            log_stats=False,
        )
    return manager, address, port
