"""What a reply is held to, token by token, by xgrammar."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from streams.engine.base import Sampling
from streams.engine.fitting import fitted
from streams.engine.grammar import corrected, reason_of
from streams.engine.recurrent.model import Logits
from streams.errors import InvalidInput

_CACHE_BYTES = 128 << 20
_THREADS = 1


class Matcher:
    """Keeps one reply within its grammar."""

    def __init__(self, compiled: Any, vocabulary: int) -> None:
        from xgrammar import GrammarMatcher

        self._matcher = GrammarMatcher(compiled)
        self._allowed = np.zeros((1, -(-vocabulary // 32)), dtype=np.int32)

    def restrict(self, logits: Logits) -> None:
        """Rule out, in place, what must not come next."""
        if self._matcher.fill_next_token_bitmask(self._allowed):
            bits = np.unpackbits(self._allowed[0].view(np.uint8), bitorder="little")[: len(logits)]
            logits[bits == 0] = -np.inf

    def accept(self, token: int) -> bool:
        """This came next. Returns whether nothing can follow."""
        self._matcher.accept_token(token)
        ended: bool = self._matcher.is_terminated()
        return ended


class Compiler:
    """Compiles constraints, and remembers what it has compiled. Importing xgrammar takes seconds: made when needed.

    Args:
        pieces: the bytes of each token.
        vocabulary: rows of the model's output.
        hidden: tokens that stand for something else than their text.
        ends: tokens that end a reply.
    """

    def __init__(self, pieces: Sequence[bytes], vocabulary: int, hidden: frozenset[int], ends: frozenset[int]) -> None:
        from xgrammar import GrammarCompiler, TokenizerInfo

        # What spells nothing is never allowed.
        spelled = [pieces[i] if i < len(pieces) and i not in hidden else b"" for i in range(vocabulary)]
        info = TokenizerInfo(spelled, vocab_size=vocabulary, stop_token_ids=sorted(ends))
        self._vocabulary = vocabulary
        self._compiler = GrammarCompiler(info, max_threads=_THREADS, cache_limit_bytes=_CACHE_BYTES)

    def matcher(self, sampling: Sampling) -> Matcher | None:
        """What keeps a reply within its constraint; None where there is none.

        Raises:
            InvalidInput: the constraint cannot be enforced.
        """
        constraint = sampling.constraint
        if constraint is None:
            return None
        value = fitted(constraint.value, sampling.max_tokens) if constraint.fit else constraint.value
        try:
            grammar = corrected(constraint.kind, value)
            if grammar is not None:
                compiled = self._compiler.compile_grammar(grammar)
            elif constraint.kind == "structural_tag":
                compiled = self._compiler.compile_structural_tag(json.dumps(value))
            else:
                compiled = self._compiler.compile_json_schema(
                    json.dumps(value), any_whitespace=False, separators=(",", ":")
                )
        except Exception as exc:  # xgrammar raises RuntimeError and its kin for anything it does not like
            raise InvalidInput(f"The schema cannot be enforced: {reason_of(exc)}") from exc
        return Matcher(compiled, self._vocabulary)
