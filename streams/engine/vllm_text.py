"""Text of answers, without that of their prompts. Imported when an engine is loaded, with vLLM.

vLLM primes the detokenizer of each request with its whole prompt, and decodes all of that with the first token of the
answer: for every question, a time that grows with the stream, in which the event loop does nothing else. What a token's
text depends on is a few tokens before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tokenizers
from vllm.v1.engine import detokenizer

_FEW = 32
# Stands for bytes that are no character, or not all of one.
_BROKEN = "\N{REPLACEMENT CHARACTER}"


class AnswerDetokenizer(detokenizer.FastIncrementalDetokenizer):  # type: ignore[misc]  # vLLM ships no types
    """vLLM's, primed with the end of the prompt."""

    def __init__(self, tokenizer: Any, request: Any) -> None:
        super().__init__(tokenizer, request)
        self._prompt: Sequence[int] | None = request.prompt_token_ids or ()

    def decode_next(self, next_token_id: int) -> str:
        # Now, and not at once: the request is on its way to the engine before.
        if self._prompt is not None:
            end, self._prompt = ending(self.tokenizer, self._prompt, self.skip_special_tokens), None
            self.stream = tokenizers.decoders.DecodeStream(ids=end, skip_special_tokens=self.skip_special_tokens)
        text: str = super().decode_next(next_token_id)
        return text


def ending(tokenizer: tokenizers.Tokenizer, prompt: Sequence[int], skip_special_tokens: bool) -> Sequence[int]:
    """As many of a prompt's last tokens as it takes to tell the text of the next one.

    That is a few, where their text ends and is not empty: a decoder cannot tell what it has begun with from what comes
    next otherwise. Where it is all bytes of unusual characters it can take more.
    """
    length = _FEW
    while length < len(prompt):
        end = prompt[-length:]
        text = tokenizer.decode(end, skip_special_tokens=skip_special_tokens)
        if text.strip() and not text.endswith(_BROKEN):
            return end
        length *= 8
    return prompt


def forget_prompts() -> None:
    """Have all answers of this process detokenized so."""
    detokenizer.FastIncrementalDetokenizer = AnswerDetokenizer
