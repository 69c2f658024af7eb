"""How a query is put to the model over a snapshot, and what its answer is made of."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import aclosing

from flashquery.answers import Answer
from flashquery.confidence import ChoiceTree, Prefix, gap
from flashquery.queries import FlashQuery
from flashquery.ready import Ready
from streams.engine.base import FinishReason, Priority, Sampling
from streams.errors import Unavailable
from streams.messages import Shape
from streams.questions import Prompt, Questions
from streams.reply import Reply
from streams.session import Session, Snapshot

_PLAIN = Shape(choice="none")


class Asking:
    """Puts queries to the model, in the background.

    Args:
        questions: renders and runs.
        concurrency: requests in the engine at once, all sessions together.
        preface_room: longest text before a question, in tokens; what is longer is cut off at the end.
    """

    def __init__(self, questions: Questions, concurrency: int, preface_room: int) -> None:
        self._questions = questions
        self._preface_room = preface_room
        self._slots = asyncio.Semaphore(concurrency)

    async def answer(self, session: Session, query: FlashQuery, snapshot: Snapshot, preface: str = "") -> Answer:
        """The answer to a query over ``snapshot``.

        Args:
            session: the stream.
            query: the question.
            snapshot: what it is asked over.
            preface: a line to put before the question; as untrusted as data.

        Raises:
            Unavailable: the engine failed, or the answer is not one that can be used.
        """
        question = (*self._cut(preface), *query.tokens)
        if query.tree is None:
            return await self._say(session, query, question, snapshot)
        return await self._choose(session, question, query.tree, snapshot)

    def _cut(self, preface: str) -> Prefix:
        tokens = self._questions.encode(preface)
        if len(tokens) <= self._preface_room:
            return tokens
        end = self._questions.encode("\n")
        return (*tokens[: self._preface_room - len(end)], *end)

    async def alive(self) -> None:
        """Wait until the engine can answer."""
        await self._questions.ready()

    async def ready(self, session: Session, snapshot: Snapshot) -> Ready | None:
        """The decision point of ``snapshot``: a question without words. None if the model would think first.

        Raises:
            Unavailable: the engine failed.
        """
        prompt = await self._questions.prompt(session, (), snapshot=snapshot)
        reply = await self._run(prompt, Sampling(max_tokens=1, top_logprobs=2))
        first = reply.logprobs[0]
        return None if first.thinking else Ready(snapshot.version, first.top[0][0], gap(dict(first.top)))

    async def _say(self, session: Session, query: FlashQuery, question: Prefix, snapshot: Snapshot) -> Answer:
        prompt = await self._questions.prompt(session, question, snapshot=snapshot)
        reply = await self._run(
            prompt, Sampling(query.max_tokens, top_logprobs=2), Shape(choice="none", schema=query.schema)
        )
        if query.schema is not None and reply.finish_reason == "length":
            raise Unavailable(
                f"the answer to flash query {query.id} did not fit {query.max_tokens} tokens, and half of a JSON value "
                "is of no use; raise max_tokens, or bound the lengths in the schema"
            )
        # The first token of the answer proper, not of thoughts before it, where there was something to decide.
        decided = (token for token in reply.logprobs if not token.thinking and len(token.top) > 1)
        first = next(decided, None)
        confidence = 0.0 if first is None else gap(dict(first.top))
        finish_reason: FinishReason = "length" if reply.finish_reason == "length" else "stop"
        return Answer(reply.message.content, snapshot.version, confidence, time.time(), finish_reason)

    async def _choose(self, session: Session, question: Prefix, tree: ChoiceTree, snapshot: Snapshot) -> Answer:
        found: dict[Prefix, Mapping[int, float]] = {}

        async def decide(prefix: Prefix) -> None:
            prompt = await self._questions.prompt(session, question, answer=prefix, snapshot=snapshot)
            named = tree.decisions[prefix]
            reply = await self._run(prompt, Sampling(max_tokens=1, top_logprobs=0, logprob_token_ids=named))
            found[prefix] = reply.named_logprobs

        # All run to their end, so that none is left behind when another fails.
        results = await asyncio.gather(*map(decide, tree.decisions), return_exceptions=True)
        for failure in filter(None, results):
            raise failure
        scores = tree.score(found)
        return Answer(
            scores.best,
            snapshot.version,
            scores.confidence,
            time.time(),
            probabilities=scores.probabilities,
            mass=scores.mass,
        )

    async def _run(self, prompt: Prompt, sampling: Sampling, shape: Shape = _PLAIN) -> Reply:
        async with self._slots:
            reply = self._questions.reply(prompt, sampling, shape=shape, priority=Priority.FLASH)
            async with aclosing(reply):
                async for _ in reply.deltas():
                    pass
        return reply
