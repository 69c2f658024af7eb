"""How sure an answer is, from log-probabilities. Pure, no I/O."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Prefix = tuple[int, ...]


def gap(logprobs: Mapping[int, float]) -> float:
    """The logit gap: difference of the two largest log-probabilities, in nats.

    Differences of log-probabilities equal differences of logits: the normaliser cancels out.
    """
    first, second = sorted(logprobs.values(), reverse=True)[:2]
    return first - second


@dataclass(frozen=True, slots=True)
class Scores:
    """What the model thinks of a set of choices.

    Attributes:
        best: the most probable choice.
        confidence: log-odds of the best against the second best, in nats. For choices that differ in their first
            token this is the logit gap between those two tokens.
        probabilities: of each choice, as the model would answer without being constrained; they sum to ``mass``.
        mass: how much of the model's belief the choices cover, 0 to 1. A low mass says that the model would rather
            have answered something else.
    """

    best: str
    confidence: float
    probabilities: dict[str, float]
    mass: float


class ChoiceTree:
    """Choices as a tree of tokens: the places where the model has to decide, and only those.

    The probability of a choice is the product over the decisions on its way. Where only one continuation is left the
    choice is known, and nothing is asked.

    Args:
        choices: each choice's text and its tokens; at least two, all different, none empty.
        end: the token that ends an answer; it decides between a choice and a longer one that begins with it.
    """

    def __init__(self, choices: Mapping[str, Prefix], end: int) -> None:
        self._paths = {text: (*tokens, end) for text, tokens in choices.items()}
        children: dict[Prefix, set[int]] = {}
        for path in self._paths.values():
            for depth, token in enumerate(path):
                children.setdefault(path[:depth], set()).add(token)
        # The first decision is always asked for: it says how much the model wants any of the choices.
        self.decisions: dict[Prefix, tuple[int, ...]] = {
            prefix: tuple(sorted(tokens)) for prefix, tokens in children.items() if len(tokens) > 1 or not prefix
        }

    def score(self, logprobs: Mapping[Prefix, Mapping[int, float]]) -> Scores:
        """Combine the model's log-probabilities at each of :attr:`decisions` into scores."""
        totals = {
            text: sum(logprobs[prefix][token] for prefix, token in self._decided(path))
            for text, path in self._paths.items()
        }
        best, second = sorted(totals, key=lambda text: totals[text], reverse=True)[:2]
        probabilities = {text: math.exp(total) for text, total in totals.items()}
        return Scores(best, totals[best] - totals[second], probabilities, min(1.0, sum(probabilities.values())))

    def _decided(self, path: Prefix) -> Iterator[tuple[Prefix, int]]:
        for depth, token in enumerate(path):
            if path[:depth] in self.decisions:
                yield path[:depth], token
