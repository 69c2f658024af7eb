"""The GPUs of this machine, as NVIDIA's driver tells of them, without a CUDA context in the server's process."""

from __future__ import annotations

import logging
from typing import Any

from streams.engine.facts import Accelerator

log = logging.getLogger(__name__)


def accelerators() -> tuple[Accelerator, ...]:
    """Those that vLLM may use; none on a CPU."""
    from vllm.platforms import current_platform

    if not current_platform.is_cuda():
        return ()
    try:
        return tuple(_accelerator(current_platform, number) for number in range(current_platform.device_count()))
    # A driver that does not tell is no reason not to serve.
    except Exception as error:
        log.info("the GPUs cannot be told of: %s", error)
        return ()


def _accelerator(platform: Any, number: int) -> Accelerator:
    from vllm.third_party import pynvml

    pynvml.nvmlInit()
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(platform.device_id_to_physical_device_id(number))
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    finally:
        pynvml.nvmlShutdown()
    capability = platform.get_device_capability(number).as_version_str()
    return Accelerator(
        platform.get_device_name(number),
        f"CUDA device {number}, compute capability {capability}",
        memory.total,
        memory.free,
    )
