"""What webhooks are told, how it is signed, and when it is tried again."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flashquery.notify import Change, Lane, Outcome, Webhook, delay, headers, key_of, new_key, outcome, retry_after

HOOK = Webhook("https://example.com/", b"k" * 32)


def answer(value: str, version: int = 1) -> dict[str, Any]:
    return {"id": 1, "query": "Up?", "value": value, "data_version": version, "confidence": 1.5, "evaluated_at": 0}


def lane() -> Lane:
    return Lane("s", HOOK)


def told(at: Lane, ended: Outcome = Outcome.DELIVERED) -> dict[str, Any]:
    """Send what waits; what the receiver was sent."""
    change = at.begin()
    assert change is not None
    body: dict[str, Any] = json.loads(at.message(change))
    at.settle(change, ended)
    return body


def test_a_message_holds_the_answer_and_the_one_before() -> None:
    one = lane()
    one.answered(answer("up", 3))
    assert told(one) == {
        "type": "flash.answer_changed",
        "timestamp": "1970-01-01T00:00:00Z",
        "data": {"session_id": "s", **answer("up", 3)},
    }
    one.answered({**answer("down", 4), "probabilities": {"up": 0.25, "down": 0.5}, "mass": 0.75})
    data = told(one)["data"]
    assert (data["previous_value"], data["value"], data["mass"]) == ("up", "down", 0.75)


def test_an_answer_that_did_not_change_is_not_told_again() -> None:
    one = lane()
    for version in (1, 2):
        one.answered(answer("up", version))
    assert told(one)["data"]["data_version"] == 1
    one.answered(answer("up", 3))
    assert one.begin() is None


def test_a_newer_answer_replaces_one_that_waits() -> None:
    one = lane()
    for version, value in enumerate(("up", "down", "flat")):
        one.answered(answer(value, version))
    assert told(one)["data"]["value"] == "flat"
    assert one.begin() is None


def test_an_answer_that_changed_back_before_it_was_told_is_no_news() -> None:
    one = lane()
    one.answered(answer("up"))
    told(one)
    one.answered(answer("down"))
    one.answered(answer("up"))
    assert one.begin() is None


def test_an_answer_that_changed_back_after_a_failed_attempt_is_told() -> None:
    """The receiver may have taken it and failed afterwards."""
    one = lane()
    one.answered(answer("up"))
    told(one)
    one.answered(answer("down"))
    told(one, Outcome.FAILED)
    one.answered(answer("up"))
    assert told(one)["data"]["value"] == "up"


def test_an_answer_that_comes_while_another_is_sent_is_next() -> None:
    one = lane()
    one.answered(answer("up"))
    sending = one.begin()
    assert sending is not None
    one.answered(answer("down"))
    one.settle(sending, Outcome.DELIVERED)
    data = told(one)["data"]
    assert (data["previous_value"], data["value"]) == ("up", "down")


def test_a_message_keeps_its_id_and_body_until_it_is_given_up() -> None:
    one = lane()
    one.answered(answer("up"))
    sent, over = [], False
    while not over:
        change = one.begin()
        assert change is not None
        sent.append((change.id, one.message(change)))
        over = one.settle(change, Outcome.FAILED)
    assert len(sent) == 10
    assert len(set(sent)) == 1
    one.answered(answer("up", 2))
    assert one.begin() is None, "given up is given up, until the answer changes"
    one.answered(answer("down"))
    assert told(one)["data"]["value"] == "down"


def test_a_receiver_that_is_gone_is_never_told_again() -> None:
    one = lane()
    one.answered(answer("up"))
    told(one, Outcome.GONE)
    one.answered(answer("down"))
    assert one.begin() is None


class Receiving(RuleBasedStateMachine):
    """However answers come and attempts end, the receiver ends up with the newest answer."""

    def __init__(self) -> None:
        super().__init__()
        self.lane = lane()
        self.newest: str | None = None
        self.shown: str | None = None
        self.sending: Change | None = None
        self.given_up = False

    @rule(value=st.sampled_from("abc"))
    def answer(self, value: str) -> None:
        if value != self.newest:
            self.given_up = False
        self.newest = value
        self.lane.answered(answer(value))

    @precondition(lambda self: self.sending is None and self.lane.waiting is not None)
    @rule()
    def begin(self) -> None:
        self.sending = self.lane.begin()

    @precondition(lambda self: self.sending is not None)
    @rule(arrives=st.booleans(), ended=st.sampled_from([Outcome.DELIVERED, Outcome.FAILED, Outcome.REFUSED]))
    def settle(self, arrives: bool, ended: Outcome) -> None:
        assert self.sending is not None
        value = self.sending.answer["value"]
        if arrives or ended is Outcome.DELIVERED:
            self.shown = value
        if self.lane.settle(self.sending, ended):
            assert value == self.newest
            self.given_up = True
        self.sending = None

    @invariant()
    def what_is_not_waiting_is_known(self) -> None:
        if self.lane.waiting is None and self.newest is not None and not self.given_up:
            assert self.shown == self.newest

    @invariant()
    def only_the_newest_waits(self) -> None:
        if self.lane.waiting is not None:
            assert self.lane.waiting.answer["value"] == self.newest


TestReceiving = Receiving.TestCase


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, Outcome.DELIVERED),
        (204, Outcome.DELIVERED),
        (301, Outcome.REFUSED),
        (307, Outcome.REFUSED),
        (400, Outcome.REFUSED),
        (404, Outcome.REFUSED),
        (408, Outcome.FAILED),
        (410, Outcome.GONE),
        (429, Outcome.FAILED),
        (500, Outcome.FAILED),
        (503, Outcome.FAILED),
    ],
)
def test_what_a_status_means(status: int, expected: Outcome) -> None:
    assert outcome(status) is expected


def test_a_signature_is_of_id_time_and_body() -> None:
    sent = headers(HOOK, "msg_1", b'{"a":1}', 1_700_000_000.9)
    assert (sent["webhook-id"], sent["webhook-timestamp"]) == ("msg_1", "1700000000")
    expected = hmac.new(HOOK.key, b'msg_1.1700000000.{"a":1}', hashlib.sha256).digest()
    assert sent["webhook-signature"] == "v1," + base64.b64encode(expected).decode()


def test_the_specifications_own_example() -> None:
    """From the reference libraries' tests."""
    key = key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    sent = headers(Webhook("", key), "msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', 1614265330)
    assert sent["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(key=st.binary(min_size=24, max_size=64))
def test_a_secret_spells_its_key(key: bytes) -> None:
    assert key_of(Webhook("", key).secret) == key


def test_new_keys_differ_and_are_long_enough() -> None:
    assert new_key() != new_key()
    assert key_of(Webhook("", new_key()).secret)


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        "whsec_short",
        "whsec_!!!",
        base64.b64encode(b"k" * 32).decode(),
        "whsec_ä",
        "whsec_" + base64.b64encode(b"k" * 23).decode(),
        "whsec_" + base64.b64encode(b"k" * 65).decode(),
    ],
)
def test_secrets_that_are_none(secret: str) -> None:
    with pytest.raises(ValueError, match="24 to 64 bytes"):
        key_of(secret)


def test_a_key_does_not_show() -> None:
    assert "kkk" not in repr(HOOK)


@given(failures=st.integers(1, 10_000), jitter=st.floats(0, 1), asked=st.floats(0, 1e9))
def test_delays_grow_and_are_bounded(failures: int, jitter: float, asked: float) -> None:
    assert delay(failures, 1) <= delay(failures + 1, 1)
    assert delay(failures, 1) / 2 <= delay(failures, jitter) <= 300
    assert min(asked, 300) <= delay(failures, jitter, asked) <= 300


def test_delays_double() -> None:
    assert [delay(failures, 1) for failures in range(1, 11)] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("soon", 0),
        ("-5", 0),
        ("1e9", 0),
        ("30", 30),
        (" 30 ", 30),
        ("9" * 400, 999_999_999),
        (format_datetime(datetime.fromtimestamp(1_060, UTC), usegmt=True), 60),
        (format_datetime(datetime.fromtimestamp(940, UTC), usegmt=True), 0),
    ],
)
def test_retry_after(header: str | None, seconds: float) -> None:
    assert retry_after(header, 1_000) == seconds


@given(header=st.text(max_size=40))
def test_any_retry_after_is_a_time(header: str) -> None:
    assert retry_after(header, 1_000) >= 0
