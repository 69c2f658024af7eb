"""The GPUs of this machine, as NVIDIA's driver tells of them, without a CUDA context in the server's process."""

from __future__ import annotations

import logging

from streams.engine.facts import Accelerator

log = logging.getLogger(__name__)


def accelerators() -> tuple[Accelerator, ...]:
    """Those that vLLM may use; none on a CPU."""
    from vllm.platforms import current_platform

    if not current_platform.is_cuda():
        return ()
    from vllm.third_party import pynvml

    try:
        pynvml.nvmlInit()
        try:
            return tuple(
                _accelerator(number, current_platform.visible_device_id_to_physical_device_id(number))
                for number in range(current_platform.device_count())
            )
        finally:
            pynvml.nvmlShutdown()
    # A driver that does not tell is no reason not to serve.
    except Exception as error:
        log.info("the GPUs cannot be told of: %s", error)
        return ()


def _accelerator(number: int, physical: int) -> Accelerator:
    from vllm.third_party import pynvml

    handle = pynvml.nvmlDeviceGetHandleByIndex(physical)
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    description = f"CUDA device {number}, compute capability {major}.{minor}"
    return Accelerator(pynvml.nvmlDeviceGetName(handle), description, memory.total, memory.free)
