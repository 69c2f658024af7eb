"""What is said to vLLM and heard from it, in its terms and in those of :mod:`streams.engine.base`."""

from __future__ import annotations

import json
from math import inf
from typing import Any

from streams.engine.base import Constraint, FinishReason, Piece, Sampling
from streams.engine.fitting import fitted
from streams.engine.grammar import corrected, reason_of
from streams.errors import EngineUnavailable, InvalidInput

_FINISH: dict[str, FinishReason] = {"stop": "stop", "length": "length", "repetition": "stop"}


def reading() -> Any:
    """Sampling parameters of a chunk that is only read."""
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    return SamplingParams(
        max_tokens=1,
        temperature=0.0,
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
        skip_clone=True,
    )


def asking(sampling: Sampling) -> Any:
    """Sampling parameters of a question."""
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    named = list(sampling.logprob_token_ids)
    return SamplingParams(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=sampling.seed,
        ignore_eos=sampling.ignore_eos,
        stop=list(sampling.stop),
        logprobs=None if named else sampling.top_logprobs or None,
        logprob_token_ids=named or None,
        skip_special_tokens=not sampling.keep_markup,
        structured_outputs=None
        if sampling.constraint is None
        else _structured(sampling.constraint, sampling.max_tokens),
        output_kind=RequestOutputKind.DELTA,
        # Nobody else has these, and a copy takes a fifth of the time that vLLM's part of a request takes.
        skip_clone=True,
    )


def _structured(constraint: Constraint, max_tokens: int) -> Any:
    from vllm.sampling_params import StructuredOutputsParams

    value = fitted(constraint.value, max_tokens) if constraint.fit else constraint.value
    try:
        grammar = corrected(constraint.kind, value)
    except Exception as exc:  # xgrammar raises RuntimeError and its kin for anything it does not like
        raise InvalidInput(f"The schema cannot be enforced: {reason_of(exc)}") from exc
    if grammar is not None:
        return StructuredOutputsParams(grammar=grammar)
    return StructuredOutputsParams(**{constraint.kind: json.dumps(value)})


def piece(output: Any, sampling: Sampling) -> Piece:
    """A step of an answer.

    Raises:
        InvalidInput: the constraint could not be compiled.
        EngineUnavailable: the engine gave the request up for a reason of its own.
    """
    (completion,) = output.outputs
    reason = completion.finish_reason
    if reason is not None and reason not in _FINISH:
        if reason == "error" and sampling.constraint is not None:
            raise InvalidInput("The schema cannot be enforced; make it simpler.")
        raise EngineUnavailable("The engine stopped before the answer was complete; retry it.", retry_after=1.0)
    stop = completion.stop_reason
    return Piece(
        text=completion.text,
        token_ids=tuple(completion.token_ids),
        # A constraint gives what it rules out no probability at all, and minus infinity is not even JSON.
        logprobs=tuple({i: p.logprob for i, p in at.items() if p.logprob > -inf} for at in completion.logprobs or ()),
        cached_tokens=output.num_cached_tokens or 0,
        finish_reason=_FINISH[reason] if reason is not None else None,
        stop=stop if isinstance(stop, str) else None,
    )
