"""How the peer's servers are started, of both generations, in terms of ours. Pure."""

from __future__ import annotations

from collections.abc import Mapping

FLAGS: Mapping[str, tuple[str, ...]] = {"context": ("--ctx", "--ctx-size"), "sessions": ("--pool-size",)}
"""Flags that are settings of ours under other names. What both call the same needs no mention."""

VARIABLES: Mapping[str, str] = {"LAYERSCALE_HOST": "host", "LAYERSCALE_PORT": "port"}
"""Variables of the environment that are settings of ours. Flags and our own variables beat them."""

OPTIONS = ("gpu_layers", "flash_attn")
"""Flags that are no settings of ours: obeyed where things are so already, else refused."""

LICENSE_VARIABLE = "LAYERSCALE_LICENSE_KEY"
"""Set wherever the peer's server was started from, and of no use here."""

ALL_LAYERS = 99
"""The peer's default for --gpu-layers; as many or more are all layers of any model."""


def variables(environ: Mapping[str, str], prefix: str) -> dict[str, str]:
    """Settings that only the peer's variables give, each with its variable's name.

    Args:
        environ: the environment.
        prefix: of our own variables.
    """
    ours = {name.upper() for name, value in environ.items() if value}
    return {
        field: variable
        for variable, field in VARIABLES.items()
        if environ.get(variable) and prefix + field.upper() not in ours
    }


def refusal(option: str, value: str, *, cpu: bool) -> str | None:
    """Why one of :data:`OPTIONS` cannot be obeyed, as a clause; None where things are as it asks.

    Args:
        option: its name.
        value: as it was given.
        cpu: whether this installation computes on the CPU.
    """
    return _gpu_layers(value, cpu) if option == "gpu_layers" else _flash_attn(value)


def _gpu_layers(value: str, cpu: bool) -> str | None:
    if not value.isdecimal():
        return "must be a number of layers; better leave it out, for a GPU has all of them"
    layers = int(value[:9])
    if layers >= ALL_LAYERS or (cpu and not layers):
        return None
    if not layers:
        return "0 asks for the CPU, and this installation is for GPUs; install the other (make setup) or leave it out"
    if cpu:
        return "this installation computes on the CPU; leave it out"
    return "a GPU has all layers; leave it out, and let --cpu-offload-gb say how much it has no room for, in GiB"


def _flash_attn(value: str) -> str | None:
    if value.lower() == "on":
        return None
    if value.lower() == "off":
        return "the engine picks what computes attention, and has nothing to switch off; leave it out"
    return "must be on or off; better leave it out, for the engine picks what computes attention"
