"""Takes replies apart while they are generated, with vLLM's parsers."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from streams.engine.base import Constraint, Delta, Piece
from streams.engine.tokenizer import HfTokenizer
from streams.messages import Shape, ToolCall, compact

log = logging.getLogger(__name__)


class PlainReader:
    """A :class:`~streams.engine.base.ReplyReader` of text that is nothing but content."""

    keep_markup = False
    thinking = False
    reasoning_tokens = 0
    call_ended = False
    malformed = False

    def __init__(self, constraint: Constraint | None) -> None:
        self.constraint = constraint

    def read(self, piece: Piece) -> Delta:
        return Delta(content=piece.text)

    def calls(self) -> tuple[ToolCall, ...]:
        return ()


class VllmReader:
    """A :class:`~streams.engine.base.ReplyReader` over a ``vllm.parser.Parser``.

    Tokens are told to the parser together with their text. vLLM holds text back, for the end of a character or because
    it may become a stop sequence, and a parser that sees the token that ends the reasoning before its text cuts wrong.
    """

    def __init__(
        self,
        tokenizer: HfTokenizer,
        parser: Any,
        whole: Any | None,
        opening: str,
        request: Any,
        shape: Shape,
        prompt: list[int],
        constraint: Constraint | None,
        *,
        thinking: bool,
    ) -> None:
        """See the class.

        Args:
            tokenizer: of the model.
            parser: reads pieces.
            whole: reads the text after the reasoning again when it is complete; None if there are no calls to find.
            opening: what a call begins with; empty where that is not known.
            request: what vLLM's server would have been asked, adjusted by the parser.
            shape: what was asked for.
            prompt: the end of the prompt, from where the last message ended.
            constraint: see the protocol.
            thinking: the reply begins with reasoning.
        """
        self._tokenizer = tokenizer
        self._parser = parser
        self._whole = whole
        self._opening = opening
        self._request = request
        self._shape = shape
        self._prompt = prompt
        self._reasoning = _Reasoning(parser.reasoning_parser, prompt) if thinking else None
        self._ids: list[int] = []
        self._text = ""
        self._fed = 0
        self._answer = ""
        self._answer_ids: list[int] = []
        self._answer_told = ""
        self._thought = _Trimmed("\n")
        self._content = _Trimmed(
            " \t\r\n" if thinking or whole is not None else "", lead=thinking and shape.separate_reasoning
        )
        self._lost = False
        self._drafts: list[tuple[str, str]] = []
        self._calls: tuple[ToolCall, ...] = ()
        self.constraint = constraint
        self.keep_markup = thinking or not request.skip_special_tokens
        self.malformed = False

    @property
    def thinking(self) -> bool:
        return self._reasoning is not None and not self._reasoning.ended

    @property
    def reasoning_tokens(self) -> int:
        return 0 if self._reasoning is None else self._reasoning.tokens

    @property
    def call_ended(self) -> bool:
        # Where a grammar describes the call, it ends the reply itself.
        alone = self._whole is not None and self.constraint is None and not self._shape.parallel
        return alone and bool(self._drafts) and _is_object(self._drafts[0][1])

    def calls(self) -> tuple[ToolCall, ...]:
        return self._calls

    def read(self, piece: Piece) -> Delta:
        if self._reasoning is not None:
            self._reasoning.advance(piece.token_ids)
        self._ids += piece.token_ids
        self._text += piece.text
        finished = piece.finish_reason is not None
        told = [self._feed(text, ids, finished=False) for text, ids in self._segments(finished=finished)]
        if finished:
            told += [self._feed("", [], finished=True), self._finish()]
        return Delta("".join(delta.reasoning for delta in told), "".join(delta.content for delta in told))

    def _segments(self, *, finished: bool) -> Iterator[tuple[str, list[int]]]:
        """Text with its tokens, as far as it has come; each control token by itself."""
        while self._ids:
            at, token = next(
                ((i, token) for i, token in enumerate(self._ids) if self._shows(token)), (len(self._ids), None)
            )
            if token is None:
                yield self._take(len(self._text), at)
                return
            surface = self._tokenizer.token_bytes(token).decode()
            start = self._text.find(surface)
            if start < 0:
                if finished:
                    yield self._take(len(self._text), len(self._ids))
                return
            if at or start:
                yield self._take(start, at)
            text, ids = self._take(len(surface), 1)
            yield ("" if token in self._tokenizer.end_ids else text), ids
        if self._text:
            yield self._take(len(self._text), 0)

    def _shows(self, token: int) -> bool:
        """Whether a token is a control token whose surface is in the text."""
        tokenizer = self._tokenizer
        return token in tokenizer.control_ids and (self.keep_markup or token not in tokenizer.hidden_ids)

    def _take(self, characters: int, tokens: int) -> tuple[str, list[int]]:
        taken = self._text[:characters], self._ids[:tokens]
        self._text, self._ids = self._text[characters:], self._ids[tokens:]
        return taken

    def _feed(self, text: str, ids: list[int], *, finished: bool) -> Delta:
        thinking = self._reasoning is not None and self._fed < self._reasoning.tokens
        self._fed += len(ids)
        if not thinking:
            self._answer += text
            self._answer_ids += ids
        before_calls = not self._drafts
        reasoning, content = self._parse(text, ids, finished=finished)
        if not before_calls:
            content = ""
        if thinking and not self._shape.separate_reasoning:
            return Delta(content=text + self._content.add(content))
        reasoning = self._thought.add(reasoning)
        return Delta(reasoning if self._shape.separate_reasoning else "", self._tell(content))

    def _parse(self, text: str, ids: list[int], *, finished: bool) -> tuple[str, str]:
        """The reasoning and the content that a piece of text adds; calls are noted."""
        if self._lost:
            return "", text
        try:
            message = self._parser.parse_delta(
                text, ids, self._request, prompt_token_ids=self._prompt, finished=finished
            )
        except Exception:  # a parser meets whatever a model writes; the text is worth more than its structure
            log.exception("a parser failed; the rest of the reply is content")
            self._lost = True
            return "", text
        if message is None:
            return "", ""
        self._draft(message.tool_calls)
        return message.reasoning or "", message.content or ""

    def _tell(self, content: str) -> str:
        content = self._content.add(content)
        self._answer_told += content
        return content

    def _draft(self, deltas: list[Any]) -> None:
        for delta in deltas:
            while len(self._drafts) <= delta.index:
                self._drafts.append(("", ""))
            name, arguments = self._drafts[delta.index]
            if delta.function is not None:
                self._drafts[delta.index] = (
                    name + (delta.function.name or ""),
                    arguments + (delta.function.arguments or ""),
                )

    def _finish(self) -> Delta:
        """Settle the calls, and say what was held back for calls that there are not."""
        if self._whole is None:
            return Delta(content=self._content.rest())
        found = self._reread(self._whole)
        drafts = found if len(found) >= len(self._drafts) else [draft for draft in self._drafts if draft[0]]
        if self._shape.forced and len(drafts) > 1:
            drafts = [draft for draft in drafts if _is_object(draft[1])] or drafts[:1]
        if not self._shape.parallel:
            drafts = drafts[:1]
        self._calls = tuple(ToolCall(f"call_{uuid4().hex}", name, compact(text)) for name, text in drafts)
        self.malformed = any(not _is_object(text) for _, text in drafts)
        if self._calls:
            return Delta()
        held = self._content.rest()
        told = self._answer_told + held
        answer = self._answer.lstrip() if self._content.led else self._answer
        if answer.startswith(told) and (kept := answer[len(told) :]).strip():
            self.malformed = self._opening in kept
            return Delta(content=held + kept)
        return Delta(content=held)

    def _reread(self, parser: Any) -> list[tuple[str, str]]:
        """The calls in the whole text after the reasoning. Parsers are more certain of it than of its pieces."""
        if self.thinking or not self._answer.strip():
            return []
        try:
            _, _, calls = parser.parse(
                self._answer, self._request, enable_auto_tools=True, model_output_token_ids=self._answer_ids
            )
        except Exception:
            log.exception("a parser failed; calls are those it found before")
            return []
        return [(call.name, call.arguments) for call in calls or ()]


class _Reasoning:
    """Counts the tokens of the reasoning, as the engine does that holds a constraint back meanwhile.

    Attributes:
        tokens: of the reasoning so far, markers included.
        ended: whether it is over.
    """

    def __init__(self, parser: Any, prompt: list[int]) -> None:
        self._parser = parser
        self._seen = list(prompt)
        self.tokens = 0
        self.ended = False

    def advance(self, ids: tuple[int, ...]) -> None:
        for token in ids:
            if self.ended:
                return
            self._seen.append(token)
            end = self._parser.find_reasoning_end([token]) if hasattr(self._parser, "find_reasoning_end") else None
            if end is not None:
                self.ended = end.offset == 0
                self.tokens += not (self.ended and end.implicit)
            else:
                self.ended = self._parser.is_reasoning_end_streaming(self._seen, [token])
                self.tokens += 1


class _Trimmed:
    """Text in pieces, without some characters at its beginning and, unless :meth:`rest` is asked for, at its end.

    Attributes:
        led: whether characters at the beginning are left out.
    """

    def __init__(self, characters: str, *, lead: bool = True) -> None:
        self._characters = characters
        self._held = ""
        self._begun = not lead
        self.led = lead

    def add(self, text: str) -> str:
        if not self._begun:
            text = text.lstrip(self._characters)
            self._begun = bool(text)
        text = self._held + text
        said = text.rstrip(self._characters) if self._characters else text
        self._held = text[len(said) :]
        return said

    def rest(self) -> str:
        rest, self._held = self._held, ""
        return rest


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
