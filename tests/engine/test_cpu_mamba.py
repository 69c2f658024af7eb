"""Mamba's scan on a CPU, against the recurrence written down token by token; and copies of memory."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import softplus

from streams.engine.cpu_mamba import batch_memcpy, selective_scan_fwd

CHANNELS, STATE, TOKENS = 6, 4, 30
NULL, ROWS = 0, 4


class Prompt:
    """Random inputs, one per token and channel."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator)

        self.u, self.delta, self.z = (normal(CHANNELS, TOKENS) for _ in range(3))
        self.b, self.c = normal(1, STATE, TOKENS), normal(1, STATE, TOKENS)
        self.a, self.d, self.bias = -normal(CHANNELS, STATE).exp(), normal(CHANNELS), normal(CHANNELS)

    def scan(self, states: torch.Tensor, begin: int, end: int, row: int, *, gated: bool = True) -> torch.Tensor:
        """What comes out for some of the tokens, from and into a row of the states."""
        part = slice(begin, end)
        delta, z = self.delta[:, part].clone(), self.z[:, part].clone() if gated else None
        selective_scan_fwd(
            self.u[:, part], delta, self.a, self.b[..., part], self.c[..., part], self.d, z, self.bias, True,
            torch.tensor([0, end - begin]), torch.tensor([row]), torch.tensor([begin > 0]), states, NULL,
        )  # fmt: skip
        return delta if z is None else z

    def plainly(self, *, gated: bool = True) -> torch.Tensor:
        """The recurrence of the paper."""
        state, out = torch.zeros(CHANNELS, STATE), []
        for t in range(TOKENS):
            step = softplus(self.delta[:, t] + self.bias)[:, None]
            state = torch.exp(step * self.a) * state + step * self.b[0, :, t] * self.u[:, t, None]
            y = state @ self.c[0, :, t] + self.d * self.u[:, t]
            out.append(y * self.z[:, t] * torch.sigmoid(self.z[:, t]) if gated else y)
        return torch.stack(out, 1)


@pytest.mark.parametrize("gated", [True, False])
def test_it_is_the_recurrence_whole_and_in_slices(gated: bool) -> None:
    prompt, states = Prompt(1), torch.full((ROWS, CHANNELS, STATE), 7.0)
    whole = prompt.scan(states, 0, TOKENS, 1, gated=gated)
    torch.testing.assert_close(whole, prompt.plainly(gated=gated))
    parts = [prompt.scan(states, begin, end, 2, gated=gated) for begin, end in ((0, 11), (11, 12), (12, TOKENS))]
    torch.testing.assert_close(torch.cat(parts, 1), whole)
    torch.testing.assert_close(states[1], states[2])
    assert states[3].eq(7).all()


def test_prompts_of_a_batch_do_not_touch_each_other_and_padding_touches_nothing() -> None:
    first, second, states = Prompt(1), Prompt(2), torch.zeros(ROWS, CHANNELS, STATE)
    second.a, second.d, second.bias = first.a, first.d, first.bias
    apart, alone = (prompt.scan(states, 0, TOKENS, row) for row, prompt in ((1, first), (2, second)))
    before, z = states.clone(), torch.cat([first.z, second.z, first.z], 1)
    selective_scan_fwd(
        torch.cat([first.u, second.u, first.u], 1), torch.cat([first.delta, second.delta, first.delta], 1), first.a,
        torch.cat([first.b, second.b, first.b], 2), torch.cat([first.c, second.c, first.c], 2), first.d, z, first.bias,
        True, torch.tensor([0, TOKENS, 2 * TOKENS, 3 * TOKENS]), torch.tensor([1, 2, NULL]), torch.zeros(3).bool(),
        states, NULL,
    )  # fmt: skip
    torch.testing.assert_close(z[:, :TOKENS], apart)
    torch.testing.assert_close(z[:, TOKENS : 2 * TOKENS], alone)
    torch.testing.assert_close(states, before)
    assert states[NULL].eq(0).all()


def test_pieces_of_memory_are_copied_also_onto_themselves() -> None:
    memory = torch.arange(20, dtype=torch.uint8)
    pointer = memory.data_ptr()
    batch_memcpy(torch.tensor([pointer + 4, pointer + 15]), torch.tensor([pointer, pointer + 16]), torch.tensor([8, 4]))
    assert memory.tolist() == [*range(4, 12), *range(8, 16), 15, 16, 17, 18]
