"""What an operator is told of a model."""

from __future__ import annotations

import logging

import pytest

from streams.engine.base import Dialect, ModelFacts
from streams.engine.facts import TemplateSource
from streams.engine.recurrent.dialect import PlainDialect
from streams.engine.remarks import remarks
from tests.engine.fast_dialect import FastDialect


class Thinker(FastDialect):
    """Thinks, whatever it is told."""

    switchable = False


def facts(template: TemplateSource = "model") -> ModelFacts:
    return ModelFacts("org/model", 4096, 16, 65536, chat_template=template)


@pytest.mark.parametrize("template", ["model", "override"])
def test_of_a_model_that_answers_directly_there_is_nothing_to_say(template: TemplateSource) -> None:
    assert list(remarks(facts(template), PlainDialect())) == []


@pytest.mark.parametrize(
    ("template", "dialect", "level", "words"),
    [
        ("plain", PlainDialect(), logging.WARNING, ("org/model", "imitate", "--chat-template")),
        (
            "model",
            Thinker(),
            logging.WARNING,
            ("org/model", "thousands of tokens", "the context", "Flash Query", "each evaluation", "directly"),
        ),
        ("model", FastDialect(), logging.INFO, ("org/model", "switched off")),
    ],
)
def test_what_is_to_be_known_is_said_once(
    template: TemplateSource, dialect: Dialect, level: int, words: tuple[str, ...]
) -> None:
    ((told, sentence),) = remarks(facts(template), dialect)
    assert told == level
    assert [word for word in words if word not in sentence] == []
