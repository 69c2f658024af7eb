"""What the tests of pages find, and what they let pass."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.running import run
from tests.docs.snippets import Output, SnippetError, difference, parse

PAGE = """# A page

```sh
echo one
```

It prints

```text
one
```

<!-- test: fails -->
```python
raise SystemExit(3)
```

```toml
a = 1
```

1. In a list

   ```sh
   cat <<END
     two
   END
   ```

<!-- test: shape -->
```json
{"a": 1}
```
"""


def test_blocks_are_found_with_what_they_print() -> None:
    first, second, third = parse(PAGE)
    assert (first.language, first.code, first.line) == ("sh", "echo one\n", 4)
    assert first.output == Output("text", "one\n")
    assert (second.language, second.words, second.output) == ("python", {"fails"}, None)
    assert third.code == "cat <<END\n  two\nEND\n"
    assert third.output == Output("json", '{"a": 1}\n', shape=True)
    assert PAGE.splitlines()[second.line - 1] == second.code.rstrip()


@pytest.mark.parametrize(
    ("page", "word"),
    [
        ("```bash\ntrue\n```\n", "write sh instead of bash"),
        ("```console\n$ true\n```\n", "write sh instead of console"),
        ("<!-- test: skip -->\n```sh\ntrue\n```\n", "'skip'"),
        ("<!-- test: shape -->\n```sh\ntrue\n```\n", "'shape'"),
        ("<!-- test: server -->\n```python\n1\n```\n", "'server'"),
        ("<!-- test: fails -->\n```\nprose\n```\n", "prose"),
        ("```sh\ntrue\n```\n```text\na\n```\n```text\nb\n```\n", "output already"),
        ("```sh\ntrue\n```\n<!-- test: fails -->\n", "before no block"),
    ],
)
def test_what_would_not_be_tested_is_refused(page: str, word: str) -> None:
    with pytest.raises(SnippetError, match=word):
        parse(page)


@pytest.mark.parametrize(
    ("expected", "printed"),
    [
        ("one\ntwo\n", "one  \ntwo\n\n"),
        ("on...\n", "one (1)\n"),
        ("a\n...\nz\n", "a\nb\nc\nz\n"),
        ("a\n...\nz\n", "a\nz\n"),
        ("...\n", ""),
        ("x ... y ... z\n", "x 1 y 2 z\n"),
    ],
)
def test_text_that_agrees(expected: str, printed: str) -> None:
    assert difference(Output("text", expected), printed) is None


@pytest.mark.parametrize(
    ("expected", "printed"),
    [("one\n", "one\ntwo\n"), ("one\n", "On\n"), ("a...z\n", "a\nz\n"), ("a.c\n", "abc\n"), ("a\n...\nz\n", "b\nz\n")],
)
def test_text_that_differs(expected: str, printed: str) -> None:
    assert difference(Output("text", expected), printed)


def test_what_goes_on_is_compared_by_its_beginning() -> None:
    assert difference(Output("text", "one\n"), "one\ntwo\n", whole=False) is None
    assert difference(Output("text", "one\ntwo\n"), "one\n", whole=False)


@pytest.mark.parametrize(
    ("expected", "printed"),
    [
        ('{"a": 1, "b": [true, null]}', '{"b":[true,null],"a":1.0}'),
        ('{"a": "...", "...": "..."}', '{"a": {"deep": 1}, "b": 2}'),
        ('["x", "..."]', '["x", 2, 3]'),
        ('["x", "..."]', '["x"]'),
        ('{"id": "sess_...", "n": "..."}', '{"id": "sess_ab", "n": null}'),
    ],
)
def test_json_that_agrees(expected: str, printed: str) -> None:
    assert difference(Output("json", expected), printed) is None


@pytest.mark.parametrize(
    ("expected", "printed", "where"),
    [
        ('{"a": 1}', '{"a": 2}', r"\$\.a is 2"),
        ('{"a": 1}', '{"a": true}', r"\$\.a is True"),
        ('{"a": 1}', "{}", "has no"),
        ('{"a": 1}', '{"a": 1, "b": 2}', "also has"),
        ('{"a": [1, 2]}', '{"a": [1]}', "1 items"),
        ('{"a": [1]}', '{"a": [1, 2]}', "2 items"),
        ('["x", "..."]', "[]", "0 items"),
        ('{"a": "x..."}', '{"a": "y"}', r"\$\.a"),
        ("{}", "none", "no JSON"),
    ],
)
def test_json_that_differs(expected: str, printed: str, where: str) -> None:
    told = difference(Output("json", expected), printed)
    assert told is not None
    assert re.search(where, told), told


def test_a_shape_is_of_keys_and_types() -> None:
    said = Output("json", '{"value": "yes", "gap": 1.5, "all": {"yes": 0.5}}', shape=True)
    assert difference(said, '{"value": "no", "gap": 2, "all": {"yes": 0.1}}') is None
    assert difference(said, '{"value": "no", "gap": null, "all": {"yes": 0.1}}')
    assert difference(said, '{"value": "no", "gap": 2, "all": {"no": 0.1}}')


SERVED = """
<!-- test: server -->
```sh
askahead serve --max-sessions 1   # in a terminal of its own
```

```sh
curl -s localhost:8080/v1/sessions -H 'content-type: application/json' -d '{"id": "plant"}' -o created.json
```

<!-- test: background -->
```sh
curl -sN 127.0.0.1:8080/v1/sessions/plant/events
```

```text
id: ...
event: connected
...
event: data_updated
data: {..."data_version":1...}
```

```python
import json, urllib.request

body = json.dumps({"data": "12:00 boiler 71.5"}).encode()
request = urllib.request.Request(
    "http://127.0.0.1:8080/v1/sessions/plant/push", body, {"content-type": "application/json"})
print(urllib.request.urlopen(request).read().decode())
```

```json
{"pushed": 1, "total_pushed": 1, "...": "..."}
```

<!-- test: fails -->
```sh
curl -s localhost:8080/v1/sessions -H 'content-type: application/json' -d '{"id": "another"}'
```

```json
{"error": {"code": "session_limit", "...": "..."}}
```

<!-- test: server -->
```sh
make serve
```

```sh
ls
curl -s localhost:8080/v1/sessions/plant -o there.json
```

```text
created.json
```

<!-- test: choose -->
```sh
make demo      # this
make test      # or that
```
"""


def _run(page: str, directory: Path) -> None:
    (directory / "page.md").write_text(page)
    run(directory / "page.md", directory / "run")


def test_a_page_is_run(tmp_path: Path) -> None:
    _run(SERVED, tmp_path)


def test_a_page_without_a_server_has_one(tmp_path: Path) -> None:
    _run('```sh\ncurl -s localhost:8080/health\n```\n```json\n{"status": "ok", "...": "..."}\n```\n', tmp_path)


@pytest.mark.parametrize(
    ("page", "told"),
    [
        ("```sh\nfalse\ntrue\n```", "line 2: it ended with 1"),
        ("```python\n1 / 0\n```", "ZeroDivisionError"),
        ("<!-- test: fails -->\n```sh\ntrue\n```", "it ended with 0"),
        ("```sh\necho a\n```\n```text\nb\n```", "it printed"),
        ("```sh\ncurl -s localhost:8080/v1/sessions/nowhere\n```", "session_not_found"),
        ("<!-- test: background -->\n```sh\ntrue\n```", "printed nothing"),
        ("<!-- test: choose -->\n```sh\nmake nothing\n```", "nothing"),
        ("<!-- test: choose -->\n```sh\nrm -r x\n```", "targets of make"),
        ("<!-- test: background -->\n```sh\necho a\n```\n```text\na\nb\n```", "it printed"),
    ],
)
def test_a_page_that_is_wrong_is_found_out(page: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(SnippetError, match=told):
        _run(page + "\n", tmp_path)
