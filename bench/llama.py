"""``python -m bench.llama PORT MODEL.gguf``: llama.cpp's own HTTP server with its prompt cache, on all cores."""

from __future__ import annotations

import signal
import sys

import xllamacpp

from bench import machine


def main() -> None:
    params = xllamacpp.CommonParams()
    params.port, params.model.path = int(sys.argv[1]), sys.argv[2]
    params.n_ctx = machine.CONTEXT
    # On CPUs its flash attention takes half as long again for a few tokens at the end of a long prompt.
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = len(machine.cores())
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    signal.sigwait({signal.SIGTERM})


if __name__ == "__main__":
    main()
