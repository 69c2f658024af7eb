"""From logits to tokens, and from tokens to text. Pure, no I/O."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streams.engine.base import FinishReason, Sampling
from streams.errors import InvalidInput

MAX_LOGPROBS = 20


def check(sampling: Sampling, vocabulary: int) -> None:
    """Refuse what makes no sense.

    Args:
        sampling: as asked for.
        vocabulary: rows of the model's output.

    Raises:
        InvalidInput: it names the field.
    """
    for name, wanted, fine in (
        ("max_tokens", "at least 1", sampling.max_tokens >= 1),
        ("temperature", "0 or more", sampling.temperature >= 0),
        ("top_p", "above 0 and at most 1", 0 < sampling.top_p <= 1),
        ("stop", "without empty texts", all(sampling.stop)),
        ("logprobs", f"from 0 to {MAX_LOGPROBS}", 0 <= sampling.top_logprobs <= MAX_LOGPROBS),
        (
            "logprob_token_ids",
            f"from 0 to {vocabulary - 1}",
            all(0 <= token < vocabulary for token in sampling.logprob_token_ids),
        ),
    ):
        if not fine:
            raise InvalidInput(f"`{name}` must be {wanted}.", param=name)


class Chooser:
    """Chooses the tokens of one reply."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        # A seed may be negative, of 64 bits.
        self._random = np.random.default_rng(None if sampling.seed is None else sampling.seed % 2**64)

    def choose(self, logits: NDArray[np.float32]) -> tuple[int, tuple[dict[int, float], ...]]:
        """The next token, and what is reported of it: see :attr:`streams.engine.base.Piece.logprobs`.

        Args:
            logits: one for each row of the vocabulary; minus infinity for what is ruled out.
        """
        wide = logits.astype(np.float64)
        token = self._sample(wide) if self._sampling.temperature > 0 else int(wide.argmax())
        return token, self._report(token, wide)

    def _sample(self, logits: NDArray[np.float64]) -> int:
        logits = logits / self._sampling.temperature
        probabilities = np.exp(logits - logits.max())
        probabilities /= probabilities.sum()
        order = np.argsort(-probabilities, kind="stable")
        ranked = probabilities[order]
        if self._sampling.top_p < 1:
            # The fewest of the most probable that make up top_p, at least one.
            ranked = ranked[: int(np.searchsorted(np.cumsum(ranked), self._sampling.top_p)) + 1]
        sums = np.cumsum(ranked)
        at = np.searchsorted(sums, self._random.random() * sums[-1], side="right")
        return int(order[min(int(at), len(ranked) - 1)])

    def _report(self, token: int, logits: NDArray[np.float64]) -> tuple[dict[int, float], ...]:
        named, top = self._sampling.logprob_token_ids, self._sampling.top_logprobs
        if not named and not top:
            return ()
        best = float(logits.max())
        total = best + float(np.log(np.exp(logits - best).sum()))
        if not named:
            among = np.argpartition(-logits, min(top, len(logits) - 1))[:top]
            named = tuple(int(i) for i in sorted(among, key=lambda i: (-logits[i], i)))
        shown = {i: float(logits[i]) - total for i in (token, *named)}
        return ({i: value for i, value in shown.items() if value > -np.inf},)


class Text:
    """The text of one reply: whole characters only, up to a stop sequence or the token that ends it.

    Attributes:
        stop: the stop sequence that ended it, if one did.
    """

    def __init__(
        self, sampling: Sampling, pieces: Sequence[bytes], hidden: frozenset[int], ends: frozenset[int]
    ) -> None:
        """See the class.

        Args:
            sampling: of the reply.
            pieces: the bytes of each token.
            hidden: tokens that are not shown unless asked for.
            ends: tokens that end a reply.
        """
        self._sampling = sampling
        self._pieces = pieces
        self._hidden = frozenset() if sampling.keep_markup else hidden
        self._ends = ends
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._longest = max((len(stop) for stop in sampling.stop), default=1) - 1
        self._count = 0
        self.stop: str | None = None

    def add(self, token: int, *, room: int, over: bool = False) -> tuple[str, FinishReason | None]:
        """Text that is certain now, and why the reply ends if it does.

        Args:
            token: the next one.
            room: tokens that the reply may have altogether.
            over: nothing can follow.
        """
        self._count += 1
        ended = over or (token in self._ends and not self._sampling.ignore_eos)
        if not (ended and token in self._ends) and token not in self._hidden:
            self._held += self._decoder.decode(self._pieces[token] if token < len(self._pieces) else b"")
        if (at := self._found()) >= 0:
            return self._held[:at], "stop"
        if ended or self._count >= room:
            return self._held + self._decoder.decode(b"", final=True), "stop" if ended else "length"
        # What may be the beginning of a stop sequence is not certain.
        certain = max(0, len(self._held) - self._longest)
        shown, self._held = self._held[:certain], self._held[certain:]
        return shown, None

    def _found(self) -> int:
        hits = sorted((at, -len(stop), stop) for stop in self._sampling.stop if (at := self._held.find(stop)) >= 0)
        if not hits:
            return -1
        self.stop = hits[0][2]
        return hits[0][0]
