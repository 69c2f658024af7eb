"""Holds, questions and cancellations in any order, over few states: every answer is that of the tokens alone."""

from __future__ import annotations

from array import array
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streams.engine.base import Piece, Priority, Sampling
from streams.engine.recurrent.loop import Loop, Read, Reply
from streams.engine.recurrent.model import Model
from streams.engine.recurrent.sampling import Text
from streams.errors import ModelError
from streams.models.describe import describe
from streams.models.shape import State
from tests.models import rwkv_toy

SEQUENCES = 8
WEIGHTS = rwkv_toy.weights()
SAMPLING = Sampling(max_tokens=3, top_logprobs=5, ignore_eos=True)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rwkv_toy.build(tmp_path_factory.mktemp("toy") / "toy.gguf")


@pytest.fixture(scope="module")
def model(file: Path) -> Model:
    return Model(file, memory=1 << 30, at_most=SEQUENCES, at_least=SEQUENCES, threads=1)


class Driver:
    """A loop, and what it should know."""

    def __init__(self, model: Model) -> None:
        self.loop = Loop(model)
        self.model = model
        self.serial = 0
        self.holds: dict[int, list[int]] = {}
        self.asked: dict[int, list[int]] = {}
        self.pieces: dict[int, list[Piece]] = {}
        self.reading: dict[int, tuple[int, list[int]]] = {}

    def number(self) -> int:
        self.serial += 1
        return self.serial

    def extend(self, hold: int, tokens: list[int]) -> None:
        number = self.number()
        self.reading[number] = (hold, [*self.holds.get(hold, ()), *tokens])
        self.loop.extend(number, Priority.INGEST, hold, array("i", tokens))

    def ask(self, tokens: list[int], priority: Priority) -> int:
        number = self.number()
        self.asked[number], self.pieces[number] = tokens, []
        reply = Reply.to(
            SAMPLING,
            Text(SAMPLING, [b"x"] * self.model.vocabulary, frozenset(), frozenset()),
            None,
            room=SAMPLING.max_tokens,
            kept=priority is Priority.FOREGROUND,
        )
        self.loop.ask(number, priority, array("i", tokens), reply)
        return number

    def step(self) -> None:
        for number, event in self.loop.step():
            if isinstance(event, Read):
                hold, tokens = self.reading.pop(number)
                self.holds[hold] = tokens
            else:
                self.pieces[number].append(event)

    def check(self, number: int) -> None:
        prompt, pieces = self.asked[number], self.pieces[number]
        assert pieces[-1].finish_reason == "length"
        reference = rwkv_toy.Reference(WEIGHTS)
        logits = reference.read(prompt)
        for piece in pieces:
            (reported,), (token,) = piece.logprobs, piece.token_ids
            total = logits.max() + np.log(np.exp(logits - logits.max()).sum())
            assert reported == pytest.approx({i: logits[i] - total for i in reported}, abs=2e-3)
            logits = reference.read([token])


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_every_answer_is_that_of_the_tokens_alone(model: Model, seed: int) -> None:
    random, driver = Random(seed), Driver(model)
    for sequence in range(SEQUENCES):
        model.clear(sequence)
    # More streams than there are states, so that some are read again.
    for _ in range(60):
        hold, action = random.randrange(10), random.random()
        held = driver.holds.get(hold, [])
        tokens = [random.randrange(3, rwkv_toy.VOCABULARY) for _ in range(random.choice((1, 2, 7, 20)))]
        busy = {each for each, _ in driver.reading.values()}
        if action < 0.4 and hold not in busy:
            driver.extend(hold, tokens)
        elif action < 0.7:
            cut = random.choice((len(held), len(held), len(held) // 2))
            driver.ask([*held[:cut], *tokens], random.choice((Priority.FOREGROUND, Priority.FLASH)))
        elif action < 0.75 and hold not in busy:
            driver.loop.release(hold)
            driver.holds.pop(hold, None)
        elif action < 0.8 and (running := [n for n, pieces in driver.pieces.items() if not _ended(pieces)]):
            number = random.choice(running)
            driver.loop.cancel(number)
            del driver.asked[number], driver.pieces[number]
        else:
            driver.step()
    while driver.loop.busy:
        driver.step()
    assert not driver.reading
    for number in driver.asked:
        driver.check(number)


def _ended(pieces: list[Piece]) -> bool:
    return bool(pieces) and pieces[-1].finish_reason is not None


def test_the_urgent_go_first(model: Model) -> None:
    driver = Driver(model)
    driver.extend(1, [7] * 2000)
    flash = driver.ask([8] * 1000, Priority.FLASH)
    urgent = driver.ask([9] * 600, Priority.FOREGROUND)
    while not driver.pieces[urgent]:
        driver.step()
    assert driver.pieces[flash] == []
    while not driver.pieces[flash]:
        driver.step()
    assert driver.reading
    while driver.loop.busy:
        driver.step()
    assert driver.holds[1] == [7] * 2000


def test_what_a_cold_prompt_has_read_serves_a_hold(model: Model) -> None:
    driver = Driver(model)
    stream = [11 + i % 200 for i in range(1500)]
    driver.ask([*stream, 5, 6], Priority.FLASH)
    while driver.loop.busy:
        driver.step()
    driver.loop.extend(99, Priority.INGEST, 1, array("i", stream))
    ((_, event),) = driver.loop.step()
    assert event == Read(1024)


def test_a_state_has_the_size_that_is_planned(model: Model, file: Path) -> None:
    (state,) = describe(str(file), progress=print).shape.kept
    assert isinstance(state, State)
    # Whatever llama.cpp writes beside it when it copies one.
    assert 0 <= model.state_bytes - state.layers * state.numbers * 4 < 256


def test_a_file_that_is_none_and_memory_that_is_too_little_are_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"--kv-cache-gb to \d"):
        Model(file, memory=20_000, at_most=8, at_least=8, threads=1)
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ModelError, match=r"cut\.gguf cannot be loaded"):
        Model(cut, memory=1 << 30, at_most=8, at_least=8, threads=1)
