"""Texts of calls."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.messages import compact

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(json_values, st.sampled_from([None, 1, 4]), st.booleans())
def test_compact_json_means_the_same(value: Any, indent: int | None, escaped: bool) -> None:
    spaced = json.dumps(value, indent=indent, ensure_ascii=escaped)
    short = compact(spaced)
    assert json.loads(short) == value
    assert short == json.dumps(value, ensure_ascii=escaped, separators=(",", ":"))


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ('{ "a" : 1.10 }', '{"a":1.10}'),
        ('{"n": 123456789012345678901234567890}', '{"n":123456789012345678901234567890}'),
        (r'{"a \" b": "c\\"}', r'{"a \" b":"c\\"}'),
        ("{ not JSON }", "{ not JSON }"),
        ("", ""),
    ],
)
def test_compact_changes_nothing_else(text: str, short: str) -> None:
    assert compact(text) == short
