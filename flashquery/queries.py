"""Registered questions of one session, and their answers. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict, Unpack

from flashquery.answers import Answer
from flashquery.conditions import Condition
from flashquery.confidence import ChoiceTree
from flashquery.notify import Webhook
from streams.errors import Conflict, NotFound
from streams.tally import Over


class Options(TypedDict, total=False):
    """What a query may have beside its question; see :class:`FlashQuery`."""

    fast_answer: tuple[str, ...]
    gap_threshold: float | None
    with_stats: Over | None
    every: int | None
    min_interval: float | None
    when: Condition | None


class Changes(Options, total=False):
    """What of a query can be changed; ``max_tokens`` None is the default."""

    max_tokens: int | None


@dataclass(frozen=True, slots=True)
class FlashQuery:
    """A standing question.

    Attributes:
        id: number within its session, from 1; never used again.
        text: the question.
        tokens: the same, tokenized.
        max_tokens: longest answer.
        choices: the allowed answers, None for free text.
        tree: the choices' tokens.
        schema: JSON schema that the answer obeys, None for free text.
        notify: who is told when the answer changes.
        fast_answer: candidates for an answer from the ready position, while there is no fresh one.
        gap_threshold: least logit gap for that, in nats; None for the default.
        with_stats: the statistics that are put before the question.
        every: it is evaluated after that many versions; None for each.
        min_interval: seconds between the beginnings of two evaluations, at least.
        when: it is evaluated where that holds of the statistics ``with_stats`` names, or of the window's.
    """

    id: int
    text: str
    tokens: tuple[int, ...]
    max_tokens: int
    choices: tuple[str, ...] | None = None
    tree: ChoiceTree | None = None
    schema: Mapping[str, Any] | None = None
    notify: Webhook | None = None
    fast_answer: tuple[str, ...] = ()
    gap_threshold: float | None = None
    with_stats: Over | None = None
    every: int | None = None
    min_interval: float | None = None
    when: Condition | None = None

    @property
    def asked(self) -> tuple[object, ...]:
        """What of that which can be changed has a say in the answer."""
        return (self.max_tokens, self.with_stats)


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """A session's queries and answers, as of one moment.

    Attributes:
        version: data version; none of the answers is of a later one.
        queries: in order of registration.
        answers: by query id; Redis has them.
        shown: what whoever shows it has made of it, which is there as long as it is.
    """

    version: int
    queries: Sequence[FlashQuery]
    answers: Mapping[int, Answer]
    shown: dict[object, Any] = field(default_factory=dict)

    def query(self, query_id: int) -> FlashQuery:
        """The query of that number. Raises NotFound."""
        for query in self.queries:
            if query.id == query_id:
                return query
        raise no_query(query_id)


@dataclass(slots=True)
class Registry:
    """The queries of one session, in order of registration, and the answers that Redis has.

    Args:
        limit: how many there may be.
    """

    limit: int
    _queries: dict[int, FlashQuery] = field(default_factory=dict)
    _by_text: dict[str, FlashQuery] = field(default_factory=dict)
    _answers: dict[int, Answer] = field(default_factory=dict)
    _last: int = 0
    _look: Look | None = None

    def __len__(self) -> int:
        return len(self._queries)

    def __iter__(self) -> Iterator[FlashQuery]:
        return iter(tuple(self._queries.values()))

    def __contains__(self, query: FlashQuery) -> bool:
        """Whether it is registered, and as it is here."""
        return self._queries.get(query.id) is query

    def add(
        self,
        text: str,
        tokens: tuple[int, ...],
        max_tokens: int,
        choices: tuple[str, ...] | None = None,
        tree: ChoiceTree | None = None,
        schema: Mapping[str, Any] | None = None,
        notify: Webhook | None = None,
        **options: Unpack[Options],
    ) -> FlashQuery:
        """Register a question.

        Raises:
            Conflict: the same text is registered already, or there are too many.
        """
        if (same := self._by_text.get(text)) is not None:
            raise Conflict(
                f"this query is registered already, with id {same.id}; delete that one to change it",
                code="flash_query_exists",
                param="query",
            )
        if len(self._queries) >= self.limit:
            raise Conflict(
                f"this session has {self.limit} flash queries, which is the limit; delete one first",
                code="flash_query_limit",
            )
        self._last += 1
        query = FlashQuery(self._last, text, tokens, max_tokens, choices, tree, schema, notify, **options)
        self.put(query)
        return query

    @property
    def last(self) -> int:
        """The highest number that a query ever had."""
        return self._last

    def restore(self, queries: Iterable[FlashQuery], last: int, answers: Mapping[int, Answer]) -> None:
        """Fill an empty registry with what Redis has of one that is gone."""
        for query in queries:
            self.put(query)
            if (answer := answers.get(query.id)) is not None:
                self.stored(query, answer)
        self._last = last

    def put(self, query: FlashQuery) -> None:
        """Replace the query of the same number and text. An answer to another question than it is now is forgotten."""
        before = self._queries.get(query.id)
        if before is not None and before.asked != query.asked:
            self._answers.pop(query.id, None)
        self._queries[query.id] = self._by_text[query.text] = query
        self._look = None

    def stored(self, query: FlashQuery, answer: Answer) -> None:
        """Redis has this answer by now. Nothing changes where it is none to what the query has become meanwhile."""
        present = self._queries.get(query.id)
        if present is not None and present.asked == query.asked:
            self._answers[query.id] = answer
            self._look = None

    def answer(self, query_id: int) -> Answer | None:
        """The newest answer that Redis has."""
        return self._answers.get(query_id)

    def look(self, version: int) -> Look:
        """All of it, at that data version of the session; the same object while nothing has changed."""
        if self._look is None or self._look.version != version:
            self._look = Look(version, tuple(self._queries.values()), dict(self._answers))
        return self._look

    def get(self, query_id: int) -> FlashQuery:
        """The query of that number.

        Raises:
            NotFound: there is none (any more).
        """
        query = self._queries.get(query_id)
        if query is None:
            raise no_query(query_id)
        return query

    def remove(self, query_id: int) -> None:
        """Forget a query. Raises NotFound as :meth:`get` does."""
        query = self.get(query_id)
        del self._queries[query.id], self._by_text[query.text]
        self._answers.pop(query.id, None)
        self._look = None

    def match(self, text: str) -> FlashQuery | None:
        """The query whose text is exactly this."""
        return self._by_text.get(text)


def no_query(query_id: int) -> NotFound:
    """The refusal for a query that does not exist, or not any more."""
    return NotFound(
        f"flash query {query_id} does not exist on this session; list them to see which do",
        code="flash_query_not_found",
        param="id",
    )
