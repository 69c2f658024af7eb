"""Commands on a page of Markdown, and whether what they printed is what the page says.

The rules of a page whose commands are tested:

- Fenced ``sh`` and ``python`` blocks are run in the order of the page, each as a program of its own, in one directory.
  Files carry over from block to block, variables do not. Each must end with 0; curl fails where HTTP refuses.
- The first ``text`` or ``json`` block between an executed block and the next one is what the executed block prints.
  There is one at most. Blocks of other languages, or of none, are prose.
- In ``text``, ``...`` is anything within a line, and a line of just ``...`` is any number of lines. ``json`` is
  compared as data: the string ``"..."`` is any value, ``...`` within a string anything, a key ``"..."`` stands for
  further keys, and a last item ``"..."`` for further items.
- ``localhost:8080`` and ``127.0.0.1:8080`` mean the server of the test. Where no block of the page starts it, it is
  there from the beginning.

``<!-- test: words, ... -->`` before a block, which readers do not see, says how it differs:

- ``server``, of ``sh``: one command that starts the server. What follows waits until it is ready. It ends one before.
- ``background``: does not end. What follows waits until it has printed something. It is ended with the page, and what
  it has printed by then begins with its output.
- ``fails``: ends with another code than 0.
- ``choose``, of ``sh``: targets of ``make``, one a line, to choose from. None is run, and each must be there.
- ``shape``, of ``json``: only keys and types are compared, for the values are the model's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

RUN = ("sh", "python")
OUTPUT = ("text", "json")
_MISNAMED = {"bash": "sh", "shell": "sh", "console": "sh", "py": "python", "python3": "python", "pycon": "python"}
_WORDS = {"server": ("sh",), "background": RUN, "fails": RUN, "choose": ("sh",), "shape": ("json",)}
_ANY = "..."

_PARTS = re.compile(
    r"^ *<!-- test: (?P<words>[^>]*?) -->\s*?$"
    r"|^(?P<indent> *)(?P<fence>`{3,})(?P<language>[^\s`]*)[^\n]*\n(?P<body>.*?)^(?P=indent)(?P=fence)\s*?$",
    re.MULTILINE | re.DOTALL,
)


class SnippetError(AssertionError):
    """A page breaks the rules, or does not say what is so."""


@dataclass(frozen=True)
class Output:
    """What a block is said to print."""

    language: str
    text: str
    shape: bool = False


@dataclass(frozen=True)
class Snippet:
    """A block that is run.

    Attributes:
        line: where its code begins on the page, counted from 1.
        language: ``sh`` or ``python``.
        words: those of the comment before it.
        output: what it is said to print, if the page says so.
    """

    line: int
    language: str
    code: str
    words: frozenset[str] = frozenset()
    output: Output | None = None


def parse(page: str) -> list[Snippet]:
    """The blocks of a page that are run, in order.

    Raises:
        SnippetError: the page breaks a rule.
    """
    found: list[Snippet] = []
    words: frozenset[str] = frozenset()
    for part in _PARTS.finditer(page):
        line = page.count("\n", 0, part.start()) + 2
        if part["words"] is not None:
            words = frozenset(word.strip() for word in part["words"].split(","))
            continue
        language = part["language"]
        if language in _MISNAMED:
            raise SnippetError(f"line {line - 1}: write {_MISNAMED[language]} instead of {language}")
        for word in words:
            if language not in _WORDS.get(word, ()):
                raise SnippetError(f"line {line - 1}: {word!r} says nothing about a block of {language or 'prose'}")
        body = re.sub(rf"^{part['indent']}", "", part["body"], flags=re.MULTILINE)
        if language in RUN:
            found.append(Snippet(line, language, body, words))
        elif language in OUTPUT and found:
            if found[-1].output is not None:
                raise SnippetError(f"line {line - 1}: the block before this has an output already; fence prose plainly")
            found[-1] = replace(found[-1], output=Output(language, body, "shape" in words))
        words = frozenset()
    if words:
        raise SnippetError("the last comment for tests stands before no block")
    return found


def difference(output: Output, printed: str, *, whole: bool = True) -> str | None:
    """How what was printed differs from what the page says; None if it does not.

    Args:
        whole: false if what was printed may go on.
    """
    if output.language == "text":
        return None if _agrees(output.text, printed, whole) else f"it printed\n{printed}\nand not\n{output.text}"
    try:
        found = json.loads(printed)
    except ValueError:
        return f"it printed no JSON document:\n{printed}"
    told = _differs(json.loads(output.text), found, "$", output.shape)
    return told and f"{told}; it printed\n{json.dumps(found, indent=1, ensure_ascii=False)}"


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]


def _wild(text: str) -> str:
    return ".*".join(map(re.escape, text.split(_ANY)))


def _agrees(expected: str, printed: str, whole: bool) -> bool:
    pattern = "".join(r"(?:.*\n)*" if line.strip() == _ANY else _wild(line) + r"\n" for line in _lines(expected))
    match = re.fullmatch if whole else re.match
    return match(pattern, "".join(line + "\n" for line in _lines(printed))) is not None


def _kind(value: Any) -> str:
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def _differs(expected: Any, found: Any, where: str, shape: bool) -> str | None:
    if expected == _ANY:
        return None
    if _kind(expected) != _kind(found):
        return f"{where} is {found!r}, the page says {expected!r}"
    if isinstance(expected, dict):
        return _keys_differ(expected, found, where, shape)
    if isinstance(expected, list):
        return _items_differ(expected, found, where, shape)
    if shape or expected == found or (isinstance(expected, str) and re.fullmatch(_wild(expected), found, re.DOTALL)):
        return None
    return f"{where} is {found!r}, the page says {expected!r}"


def _keys_differ(expected: dict[str, Any], found: dict[str, Any], where: str, shape: bool) -> str | None:
    named = [key for key in expected if key != _ANY]
    if missing := [key for key in named if key not in found]:
        return f"{where} has no {missing}"
    if _ANY not in expected and (more := [key for key in found if key not in expected]):
        return f"{where} also has {more}"
    told = (_differs(expected[key], found[key], f"{where}.{key}", shape) for key in named)
    return next(filter(None, told), None)


def _items_differ(expected: Sequence[Any], found: Sequence[Any], where: str, shape: bool) -> str | None:
    further = bool(expected) and expected[-1] == _ANY
    named = expected[:-1] if further else expected
    if len(found) < len(named) or (len(found) > len(named) and not further):
        return f"{where} has {len(found)} items, the page says {len(named)}"
    told = (
        _differs(one, other, f"{where}[{i}]", shape) for i, (one, other) in enumerate(zip(named, found, strict=False))
    )
    return next(filter(None, told), None)
