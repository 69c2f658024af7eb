"""The tokenizer that is written in a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from streams.engine.base import Tokenizer
from streams.engine.facts import TemplateSource
from streams.engine.recurrent.world import WorldTokenizer
from streams.engine.tokenizer import HfTokenizer
from streams.errors import ModelError
from streams.models import header

_TOKENS, _TYPES, _MERGES = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.merges"
_CONTROL, _USER_DEFINED = 3, 4
# Names that llama.cpp has for vocabularies whose text is cut into words as GPT-2's is.
_GPT2 = frozenset({"", "default", "gpt-2", "mpt", "olmo", "jais"})
_WANTED = (
    *("tokenizer.ggml.model", "tokenizer.ggml.pre", _TOKENS, _TYPES, _MERGES, "tokenizer.chat_template"),
    *("tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"),
)


class GgufTokenizer(Tokenizer, Protocol):
    """A tokenizer of so many tokens, whose control tokens are known."""

    @property
    def size(self) -> int:
        """Tokens of the vocabulary, numbered from 0."""

    @property
    def hidden_ids(self) -> frozenset[int]:
        """Control tokens, which are not shown unless asked for."""

    @property
    def template_source(self) -> TemplateSource:
        """Where the chat template is from."""


class _Gpt2Tokenizer(HfTokenizer):
    @property
    def size(self) -> int:
        return len(self.template)


def tokenizer_of(path: Path, chat_template: str | None = None) -> GgufTokenizer:
    """Read it.

    Args:
        path: the file.
        chat_template: in place of the file's own.

    Raises:
        ModelError: the file is broken, or its vocabulary is of a kind that is not known here.
    """
    from gguf import GGUFReader

    try:
        header.read(path)  # it says in words where a file is cut off
        reader = GGUFReader(path)
        fields = {name: field.contents() for name in _WANTED if (field := reader.get_field(name)) is not None}
    except Exception as exc:  # whatever a hostile file makes the parser raise
        raise ModelError(f"{path} cannot be read as a GGUF file: {exc}; get it again.", param="model") from exc
    kind, cut = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre", "")
    eos = fields.get("tokenizer.ggml.eos_token_id")
    if _TOKENS not in fields or not isinstance(eos, int):
        raise ModelError(f"{path} has no tokenizer, or one without an end; get a file that has.", param="model")
    ends = [end for end in (eos, fields.get("tokenizer.ggml.eot_token_id")) if end is not None]
    if kind == "rwkv":
        return WorldTokenizer(fields[_TOKENS], ends, chat_template)
    if kind == "gpt2" and cut in _GPT2 and _MERGES in fields:
        return _gpt2(fields, eos, ends, chat_template)
    raise ModelError(
        f"The vocabulary in {path} is of the kind {kind} ({cut}), which is not known for recurrent models; get a file "
        "with the model's own.",
        param="model",
    )


def _gpt2(fields: Mapping[str, Any], eos: int, ends: list[int], chat_template: str | None) -> _Gpt2Tokenizer:
    from tokenizers import AddedToken, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Backend
    from transformers import PreTrainedTokenizerFast

    pieces: list[str] = fields[_TOKENS]
    merges = [tuple(pair.split(" ", 1)) for pair in fields[_MERGES]]
    backend = Backend(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    for piece, kind in zip(pieces, fields.get(_TYPES, ()), strict=False):
        if kind == _CONTROL:
            backend.add_special_tokens([AddedToken(piece, special=True, normalized=False)])
        elif kind == _USER_DEFINED:
            backend.add_tokens([AddedToken(piece, special=False, normalized=False)])
    bos = fields.get("tokenizer.ggml.bos_token_id")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=None if bos is None else pieces[bos], eos_token=pieces[eos]
    )
    fast.chat_template = fields.get("tokenizer.chat_template")
    return _Gpt2Tokenizer(fast, ends, chat_template)
