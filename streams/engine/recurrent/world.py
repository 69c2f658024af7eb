"""The "World" vocabulary of RWKV models: the longest piece that fits, byte by byte, and no rules besides."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from streams.engine.chat_template import PLAIN, rendered
from streams.engine.facts import TemplateSource
from streams.errors import InvalidInput


class WorldTokenizer:
    """A :class:`~streams.engine.base.Tokenizer`. Its only control token is number 0, which no text can become.

    The models were trained on conversations in plain text, whose messages are set off by a name and a blank line: those
    that the plain template writes. So a file's own template is not needed.

    Args:
        pieces: the vocabulary as GGUF files have it: bytes, escaped as Python does.
        ends: tokens that end an answer.
        chat_template: in place of the plain one.
    """

    hidden_ids = frozenset({0})

    def __init__(self, pieces: Sequence[str], ends: Sequence[int], chat_template: str | None = None) -> None:
        self._pieces = [b"", *(_unescaped(piece) for piece in pieces[1:])]
        self._ids = {piece: i for i, piece in enumerate(self._pieces) if i and not _is_padding(i, piece)}
        # How long the pieces are that begin with two given bytes, longest first: few lengths are to be tried.
        lengths: dict[bytes, set[int]] = {}
        for piece in self._ids:
            lengths.setdefault(piece[:2], set()).add(len(piece))
        self._lengths = {start: sorted(found, reverse=True) for start, found in lengths.items()}
        self.end_ids = frozenset({0, *ends})
        self.template_source: TemplateSource = "plain" if chat_template is None else "override"
        self._template = PLAIN if chat_template is None else chat_template

    @property
    def eos_id(self) -> int:
        return 0

    @property
    def size(self) -> int:
        return len(self._pieces)

    def encode(self, text: str) -> list[int]:
        """See :meth:`streams.engine.base.Tokenizer.encode`.

        Raises:
            InvalidInput: the text is not valid Unicode.
        """
        try:
            data = text.encode()
        except UnicodeEncodeError as exc:
            raise InvalidInput("The text is not valid Unicode: it has half of a surrogate pair.") from exc
        ids, at = [], 0
        while at < len(data):
            # The vocabulary has every byte, so that something always fits.
            for length in (*self._lengths.get(data[at : at + 2], ()), 1):
                token = self._ids.get(data[at : at + length])
                if token is not None:
                    ids.append(token)
                    break
            at += length
        return ids

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def encode_markup(self, text: str) -> list[int]:
        return self.encode(text)

    def guard(self, text: str, mark: str) -> str:
        self.encode(text)
        return text

    def token_bytes(self, token: int) -> bytes:
        return self._pieces[token] if token < len(self._pieces) else b""

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        options: Mapping[str, object],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        generation: bool = True,
    ) -> str:
        """See :meth:`streams.engine.base.Tokenizer.render`."""
        if options:
            name = next(iter(options))
            raise InvalidInput(f"This model's conversations have no option {name}; leave it out.", param=name)
        return rendered(self._template, messages, generation=generation)


def _unescaped(piece: str) -> bytes:
    quote = '"' if "'" in piece and '"' not in piece else "'"
    try:
        value: bytes = ast.literal_eval(f"b{quote}{piece}{quote}")
    except (SyntaxError, ValueError):
        return piece.encode()
    return value


def _is_padding(token: int, piece: bytes) -> bool:
    return piece == f"[PAD{token}]".encode()
