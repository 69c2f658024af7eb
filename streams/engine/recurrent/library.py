"""llama.cpp's C API, as much of it as recurrent models need, from the library inside of xllamacpp's wheel.

The package's Python interface is a whole server; the functions beneath are exported by its extension module. Which
ones is nobody's promise, so the wheel is pinned and what is relied on is checked when it is loaded.
"""

from __future__ import annotations

import ctypes as c
import importlib.util
import logging
from functools import cache
from pathlib import Path
from typing import Any

from streams.errors import ModelError

log = logging.getLogger(__name__)

EXTRA = "pip install 'askahead[recurrent]'"

# More than either struct of parameters has. They are passed by value, on the stack: the callee reads what it knows.
_ROOM = 512
_WARNING, _ERROR, _CONTINUED = 3, 4, 5


class Params(c.Structure):
    """A struct of parameters whose layout is known only where it is written to."""

    _fields_ = (("bytes", c.c_byte * _ROOM),)

    def __getitem__(self, number: int) -> int:
        """The 32-bit number at a position."""
        return c.c_uint32.from_buffer(self, 4 * number).value

    def __setitem__(self, number: int, value: int) -> None:
        c.c_uint32.from_buffer(self, 4 * number).value = value


# Positions in the parameters of a context, and what the library says there by itself.
N_CTX, N_BATCH, N_UBATCH, N_SEQ_MAX, N_THREADS, N_THREADS_BATCH = 0, 1, 2, 3, 7, 8
_DEFAULTS = {N_CTX: 512, N_BATCH: 2048, N_UBATCH: 512, N_SEQ_MAX: 1}


class Batch(c.Structure):
    """``llama_batch``: tokens of several sequences."""

    _fields_ = (
        ("n_tokens", c.c_int32),
        ("token", c.POINTER(c.c_int32)),
        ("embd", c.c_void_p),
        ("pos", c.POINTER(c.c_int32)),
        ("n_seq_id", c.POINTER(c.c_int32)),
        ("seq_id", c.POINTER(c.POINTER(c.c_int32))),
        ("logits", c.POINTER(c.c_int8)),
    )


_LOG = c.CFUNCTYPE(None, c.c_int, c.c_char_p, c.c_void_p)
_POINTER, _INT, _SIZE = c.c_void_p, c.c_int32, c.c_size_t
_FUNCTIONS: tuple[tuple[str, Any, tuple[Any, ...]], ...] = (
    ("llama_log_set", None, (_LOG, _POINTER)),
    ("llama_backend_init", None, ()),
    ("llama_model_default_params", Params, ()),
    ("llama_context_default_params", Params, ()),
    ("llama_model_load_from_file", _POINTER, (c.c_char_p, Params)),
    ("llama_model_free", None, (_POINTER,)),
    ("llama_model_is_recurrent", c.c_bool, (_POINTER,)),
    ("llama_model_get_vocab", _POINTER, (_POINTER,)),
    ("llama_vocab_n_tokens", _INT, (_POINTER,)),
    ("llama_init_from_model", _POINTER, (_POINTER, Params)),
    ("llama_free", None, (_POINTER,)),
    ("llama_get_memory", _POINTER, (_POINTER,)),
    ("llama_memory_seq_cp", None, (_POINTER, _INT, _INT, _INT, _INT)),
    ("llama_memory_seq_rm", c.c_bool, (_POINTER, _INT, _INT, _INT)),
    ("llama_batch_init", Batch, (_INT, _INT, _INT)),
    ("llama_decode", _INT, (_POINTER, Batch)),
    ("llama_get_logits_ith", c.POINTER(c.c_float), (_POINTER, _INT)),
    ("llama_state_seq_get_size", _SIZE, (_POINTER, _INT)),
)


@cache
def library() -> Any:
    """The library, ready for use.

    Raises:
        ModelError: it is not installed, or not the one that this was written for.
    """
    found = importlib.util.find_spec("xllamacpp")
    if found is None or found.origin is None:
        raise ModelError(f"This model needs llama.cpp: {EXTRA}", param="model")
    try:
        loaded = c.CDLL(str(Path(found.origin).with_name("xllamacpp.abi3.so")))
        for name, result, arguments in _FUNCTIONS:
            function = getattr(loaded, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as exc:
        raise ModelError(f"llama.cpp cannot be used as it is installed ({exc}): {EXTRA}", param="model") from exc
    loaded.llama_log_set(_told, None)
    loaded.llama_backend_init()
    defaults = loaded.llama_context_default_params()
    if {number: defaults[number] for number in _DEFAULTS} != _DEFAULTS:
        raise ModelError(f"llama.cpp is of a version that is not known here: {EXTRA}", param="model")
    return loaded


_told_level = 0
last_error = ""
"""What the library complained of last; its functions say no more than that they failed."""


def _tell(level: int, text: bytes, _: Any) -> None:
    global _told_level, last_error
    _told_level = level = _told_level if level == _CONTINUED else level
    line = text.decode(errors="replace").strip()
    if line and level == _ERROR:
        last_error = line
    if line:
        log.log({_ERROR: logging.WARNING, _WARNING: logging.INFO}.get(level, logging.DEBUG), "llama.cpp: %s", line)


# Kept: the library calls it for as long as it lives.
_told = _LOG(_tell)
