"""Scores of choices against brute force over a random model."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashquery.confidence import ChoiceTree, Prefix, gap

END = 0
VOCABULARY = range(6)

Model = dict[Prefix, dict[int, float]]


@st.composite
def choices_and_model(
    draw: st.DrawFn, distinguished_by: Callable[[Prefix], object] = lambda path: path
) -> tuple[dict[str, Prefix], Model]:
    """Choices, some of which begin with others, and a model's distribution after every prefix of them."""
    path = st.lists(st.integers(1, VOCABULARY[-1]), min_size=1, max_size=4).map(tuple)
    paths = draw(st.lists(path, min_size=2, max_size=5, unique_by=distinguished_by))
    prefixes = {path[:depth] for path in paths for depth in range(len(path) + 1)}
    logits = st.lists(st.floats(-8, 8), min_size=len(VOCABULARY), max_size=len(VOCABULARY))
    return {f"choice {n}": path for n, path in enumerate(paths)}, {
        prefix: log_softmax(draw(logits)) for prefix in sorted(prefixes)
    }


def log_softmax(logits: list[float]) -> dict[int, float]:
    total = math.log(sum(map(math.exp, logits)))
    return {token: logit - total for token, logit in enumerate(logits)}


def belief(path: Prefix, paths: list[Prefix], model: Model) -> float:
    """The product over the places where the model had a choice between choices, and over the first token."""
    probability = 1.0
    for depth, token in enumerate((*path, END)):
        prefix = path[:depth]
        continuations = {(*other, END)[depth] for other in paths if other[:depth] == prefix}
        if depth == 0 or len(continuations) > 1:
            probability *= math.exp(model[prefix][token])
    return probability


@given(choices_and_model())
def test_probabilities_are_the_products_of_the_decisions(drawn: tuple[dict[str, Prefix], Model]) -> None:
    choices, model = drawn
    tree = ChoiceTree(choices, END)
    scores = tree.score({prefix: model[prefix] for prefix in tree.decisions})
    expected = {text: belief(path, list(choices.values()), model) for text, path in choices.items()}
    assert scores.probabilities == pytest.approx(expected)
    assert scores.mass == pytest.approx(sum(expected.values()))
    assert 0.0 < scores.mass <= 1.0
    first, second = sorted(expected.values(), reverse=True)[:2]
    assert expected[scores.best] == pytest.approx(first)
    assert scores.confidence == pytest.approx(math.log(first) - math.log(second), abs=1e-9)
    assert scores.confidence >= 0.0


@given(choices_and_model())
def test_only_real_decisions_are_asked_for(drawn: tuple[dict[str, Prefix], Model]) -> None:
    choices, _ = drawn
    tree = ChoiceTree(choices, END)
    assert () in tree.decisions
    for prefix, tokens in tree.decisions.items():
        assert len(tokens) > 1 or not prefix
        for token in tokens:
            assert any((*path, END)[: len(prefix) + 1] == (*prefix, token) for path in choices.values())
    # A tree with n leaves has at most n - 1 branchings, and the root is asked for anyway.
    assert len(tree.decisions) <= len(choices)


@given(choices_and_model(distinguished_by=lambda path: path[0]))
def test_choices_that_differ_in_their_first_token_are_decided_by_the_logit_gap(
    drawn: tuple[dict[str, Prefix], Model],
) -> None:
    choices, model = drawn
    tree = ChoiceTree(choices, END)
    assert list(tree.decisions) == [()]
    scores = tree.score({(): model[()]})
    first, second = sorted((model[()][path[0]] for path in choices.values()), reverse=True)[:2]
    assert scores.confidence == pytest.approx(first - second)


def test_a_choice_that_begins_another_is_told_apart_by_the_end() -> None:
    tree = ChoiceTree({"no": (1,), "nobody": (1, 2)}, END)
    assert tree.decisions == {(): (1,), (1,): (END, 2)}
    scores = tree.score({(): {1: math.log(0.8)}, (1,): {END: math.log(0.25), 2: math.log(0.5)}})
    assert scores.best == "nobody"
    assert scores.probabilities == pytest.approx({"no": 0.2, "nobody": 0.4})
    assert scores.mass == pytest.approx(0.6)


def test_a_low_mass_says_that_the_model_wanted_another_answer() -> None:
    tree = ChoiceTree({"up": (1,), "down": (2,)}, END)
    scores = tree.score({(): {1: -9.0, 2: -10.0, 3: -0.001}})
    assert scores.best == "up"
    assert scores.confidence == pytest.approx(1.0)
    assert scores.mass < 0.001


@given(st.lists(st.floats(-50, 0), min_size=2, max_size=10), st.floats(-20, 20))
def test_the_gap_is_between_the_two_largest_and_needs_no_normalising(logprobs: list[float], shift: float) -> None:
    first, second = sorted(logprobs, reverse=True)[:2]
    assert gap(dict(enumerate(logprobs))) == first - second >= 0
    assert gap({token: value + shift for token, value in enumerate(logprobs)}) == pytest.approx(first - second)
