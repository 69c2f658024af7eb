"""Tokenizing with Hugging Face tokenizers, so that untrusted text can never become a control token."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from tokenizers import Encoding
from tokenizers import Tokenizer as Backend

from streams.engine.chat_template import PLAIN, refusal
from streams.engine.facts import TemplateSource
from streams.errors import InvalidInput, ModelError

_METASPACE = "\u2581"


class HfTokenizer:
    """A :class:`~streams.engine.base.Tokenizer` read from a model directory. Safe to use from several threads.

    Attributes:
        template: the fast tokenizer of transformers that is wrapped, with the chat template that is used.
        template_source: where that is from.
        end_ids: see :attr:`streams.engine.base.Tokenizer.end_ids`.
        hidden_ids: the control tokens that decoding leaves out unless asked not to.
        control_ids: every token that means something to the model beside its text: special tokens, added tokens
            whether or not they are flagged special, and the tokens that end a generation.
    """

    def __init__(self, template: Any, generation_eos: Sequence[int] = (), chat_template: str | None = None) -> None:
        """Wrap a fast tokenizer of transformers.

        Args:
            template: the tokenizer.
            generation_eos: further tokens that end an answer.
            chat_template: in place of the tokenizer's own.

        Raises:
            ModelError: it is not a fast one, or names no token that ends an answer.
        """
        backend = getattr(template, "backend_tokenizer", None)
        if not isinstance(backend, Backend):
            raise ModelError("The model has no tokenizer.json; convert its tokenizer to a fast one first.")
        if template.eos_token_id is None:
            raise ModelError("The model's tokenizer names no eos_token; set it in tokenizer_config.json.")
        self.template_source: TemplateSource = (
            "override" if chat_template is not None else "model" if template.chat_template else "plain"
        )
        if self.template_source != "model":
            # Written into the tokenizer, since vLLM's parsers look for it there.
            template.chat_template = PLAIN if chat_template is None else chat_template
        self.template = template
        self._markup = backend
        # Once, and not with the standard library's reader: vocabularies of 33 MB would hold up the whole process.
        state = orjson.loads(backend.to_str())
        self._plain = _without_added_tokens(state)
        self._eos_id: int = template.eos_token_id
        self._bytes_of = _bytes_of_pieces(state)
        self.end_ids = frozenset({*generation_eos, self._eos_id})
        self.hidden_ids = frozenset(template.all_special_ids)
        self._reserved = frozenset(inspect.signature(template.apply_chat_template).parameters) - {"kwargs"}
        self.control_ids = frozenset({*template.all_special_ids, *template.added_tokens_decoder, *self.end_ids})

    @classmethod
    def load(cls, model: Path, chat_template: str | None = None) -> HfTokenizer:
        """Read the tokenizer of a model directory.

        Args:
            model: the directory.
            chat_template: in place of the model's own.

        Raises:
            ModelError: there is none, or it cannot be used.
        """
        from transformers import AutoTokenizer

        try:
            template = AutoTokenizer.from_pretrained(str(model), local_files_only=True)
        except (OSError, ValueError, KeyError) as exc:
            raise ModelError(f"The tokenizer in {model} cannot be read: {exc}") from exc
        return cls(template, _generation_eos(model / "generation_config.json"), chat_template)

    @property
    def eos_id(self) -> int:
        return self._eos_id

    @property
    def template_text(self) -> str:
        """The chat template, the one for tools where there are several."""
        template: object = self.template.chat_template
        if isinstance(template, dict):
            template = template.get("tool_use", template.get("default"))
        return template if isinstance(template, str) else ""

    def encode(self, text: str) -> list[int]:
        """See :meth:`streams.engine.base.Tokenizer.encode`.

        Raises:
            InvalidInput: the text is not valid Unicode.
        """
        return self._uncontrolled(text, _encode(self._plain, text).ids)

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """See :meth:`streams.engine.base.Tokenizer.encode_all`; raises as :meth:`encode`."""
        with _unicode():
            encodings = self._plain.encode_batch_fast(texts, add_special_tokens=False)
        return [self._uncontrolled(text, encoding.ids) for text, encoding in zip(texts, encodings, strict=True)]

    def _uncontrolled(self, text: str, ids: list[int]) -> list[int]:
        return ids if self.control_ids.isdisjoint(ids) else self._encode_in_parts(text)

    def _encode_in_parts(self, text: str) -> list[int]:
        """Cut the surface of every control token in two until none is left.

        Some vocabularies have ``<s>`` or ``[UNK]`` among their ordinary pieces. A single character that is still
        one is dropped: the vocabulary has no other way to write it.
        """
        ids: list[int] = []
        parts = [text]
        while parts:
            part = parts.pop()
            encoding = _encode(self._plain, part)
            spans = [
                span
                for id_, span in zip(encoding.ids, encoding.offsets, strict=True)
                if id_ in self.control_ids and span[1] - span[0] > 1
            ]
            if not spans:
                ids.extend(id_ for id_ in encoding.ids if id_ not in self.control_ids)
                continue
            cuts = [0, *((start + end) // 2 for start, end in spans), len(part)]
            parts.extend(part[a:b] for a, b in zip(reversed(cuts[:-1]), reversed(cuts[1:]), strict=True))
        return ids

    def encode_markup(self, text: str) -> list[int]:
        ids: list[int] = _encode(self._markup, text).ids
        return ids

    def guard(self, text: str, mark: str) -> str:
        """See :meth:`streams.engine.base.Tokenizer.guard`. A control token of one character gives way to the mark.

        Raises:
            InvalidInput: the text is not valid Unicode.
        """
        safe: list[str] = []
        parts = [text]
        while parts:
            part = parts.pop()
            encoding = _encode(self._markup, part)
            spans = [span for id_, span in zip(encoding.ids, encoding.offsets, strict=True) if id_ in self.control_ids]
            if not spans:
                safe.append(part)
                continue
            kept, pieces = 0, []
            for start, end in spans:
                middle = (start + end) // 2
                pieces.append(part[kept:middle])
                kept = middle if end - start > 1 else max(end, start + 1)
            parts.extend(reversed([*pieces, part[kept:]]))
        return mark.join(safe)

    def token_bytes(self, token: int) -> bytes:
        """See :meth:`streams.engine.base.Tokenizer.token_bytes`. Rows of the model without a token have none."""
        piece = self._markup.id_to_token(token)
        if piece is None:
            return b""
        return piece.encode() if token in self.control_ids else self._bytes_of(piece)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        options: Mapping[str, object],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        generation: bool = True,
    ) -> str:
        """See :meth:`streams.engine.base.Tokenizer.render`."""
        if taken := sorted(self._reserved & options.keys()):
            raise InvalidInput(f"{taken[0]} is not an option of the chat template; leave it out.", param=taken[0])
        try:
            rendered: str = self.template.apply_chat_template(
                [dict(message) for message in messages],
                tools=None if tools is None else [dict(tool) for tool in tools],
                tokenize=False,
                add_generation_prompt=generation,
                **options,
            )
        except Exception as exc:  # a template is the model author's program: it may raise anything
            raise refusal(exc) from exc
        return rendered


def _encode(backend: Backend, text: str) -> Encoding:
    with _unicode():
        return backend.encode(text, add_special_tokens=False)


@contextmanager
def _unicode() -> Iterator[None]:
    try:
        yield
    except (TypeError, UnicodeEncodeError) as exc:
        raise InvalidInput("The text is not valid Unicode: it has half of a surrogate pair.") from exc


def _without_added_tokens(state: Mapping[str, Any]) -> Backend:
    # The post-processor only ever adds control tokens, and refuses to load without them.
    plain = Backend.from_str(orjson.dumps({**state, "added_tokens": [], "post_processor": None}).decode())
    plain.encode_special_tokens = True
    return plain


def _bytes_of_pieces(state: Mapping[str, Any]) -> Callable[[str], bytes]:
    """How the pieces of this vocabulary spell bytes."""
    kinds = set(_kinds(state["decoder"])) | set(_kinds(state["pre_tokenizer"]))
    if "ByteLevel" in kinds:
        table = {char: byte for byte, char in _byte_alphabet()}
        return lambda piece: b"".join(bytes((table[char],)) if char in table else char.encode() for char in piece)
    fallback = state["model"].get("byte_fallback") or "ByteFallback" in kinds

    def spelled(piece: str) -> bytes:
        if fallback and (byte := re.fullmatch(r"<0x([0-9A-F]{2})>", piece)):
            return bytes.fromhex(byte[1])
        return piece.replace(_METASPACE, " ").encode()

    return spelled


def _kinds(component: Mapping[str, Any] | None) -> list[str]:
    """The types of a tokenizer's component, and of those it is made of."""
    if component is None:
        return []
    parts = [*component.get("decoders", ()), *component.get("pretokenizers", ())]
    return [component["type"], *(kind for part in parts for kind in _kinds(part))]


def _byte_alphabet() -> list[tuple[int, str]]:
    """The characters for which byte-level vocabularies write bytes: printable ones themselves, the rest from 256 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return [(byte, chr(byte)) for byte in printable] + [(byte, chr(256 + n)) for n, byte in enumerate(others)]


def _generation_eos(path: Path) -> list[int]:
    if not path.exists():
        return []
    eos = json.loads(path.read_text()).get("eos_token_id")
    return eos if isinstance(eos, list) else [] if eos is None else [eos]
