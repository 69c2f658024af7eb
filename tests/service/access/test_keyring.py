from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.access.keyring import (
    FILE_BYTES_MAX,
    KEYS_MAX,
    Key,
    Keyring,
    KeysFileError,
    digest_of,
    new_key,
    parse_keys,
    read_keys,
)

SECRET = "a-plain-key-that-was-pasted-by-mistake"
ONE = f'[[key]]\nname = "one"\nsha256 = "{digest_of("one").hex()}"\n'
TWO = f'[[key]]\nname = "two"\nsha256 = "{digest_of("two").hex().upper()}"\nprefix = "two-"\n'


def test_entries_become_keys() -> None:
    limits = "requests_per_second = 5\nburst = 20\n"
    assert parse_keys((ONE + TWO + limits).encode()) == (
        Key("one", digest_of("one")),
        Key("two", digest_of("two"), "two-", 5.0, 20),
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "at least one"),
        ("key = []", "at least one"),
        ("key = 1", "at least one"),
        (ONE + 'other = "x"\n', "entry 1 (`one`): `other` is not a field; there are name, sha256"),
        ("other = 1\n" + ONE, "at least one"),
        ("[[key]]\nname = 'one'", "entry 1 (`one`): sha256: Field required"),
        (ONE + f"[[key]]\nname = 'two'\nsha256 = '{SECRET}'", "entry 2 (`two`): sha256: must be 64 hexadecimal"),
        (ONE.replace("one", SECRET + " " + SECRET, 1), "entry 1: name: "),
        (ONE + "prefix = ''", "entry 1 (`one`): prefix: "),
        (ONE + f"prefix = '{SECRET}/'", "entry 1 (`one`): prefix: "),
        (ONE + f"prefix = '{'p' * 65}'", "entry 1 (`one`): prefix: "),
        (ONE + "requests_per_second = 0", "entry 1 (`one`): requests_per_second: "),
        (ONE + "requests_per_second = nan", "entry 1 (`one`): requests_per_second: "),
        (ONE + "requests_per_second = inf", "entry 1 (`one`): requests_per_second: "),
        (ONE + "requests_per_second = '1'", "entry 1 (`one`): requests_per_second: "),
        (ONE + "burst = 0", "entry 1 (`one`): burst: "),
        (ONE + "burst = 1.5", "entry 1 (`one`): burst: "),
        (ONE + ONE, "entry 2 (`one`): there is an entry of that name"),
        (ONE + ONE.replace('"one"', '"other"'), "entry 2 (`other`): its key is in the file before it"),
        (f"{SECRET}\n", "is not TOML, at line 1"),
        (f"[[key]]\nsha256 = {SECRET}\n", "is not TOML, at line 2"),
        (f'"{SECRET}" = 1\n"{SECRET}" = 2\n', "is not TOML"),
        ("key = [" + "[" * 5000, "is not TOML"),
        ("key = " + "1" * 5000, "is not TOML"),
        ("key = [1]", "entry 1: entry: "),
        (ONE * (KEYS_MAX + 1), "is the limit"),
    ],
)
def test_what_is_wrong_is_told_by_its_entry_and_not_repeated(content: str, message: str) -> None:
    with pytest.raises(KeysFileError) as caught:
        parse_keys(content.encode())
    assert message in caught.value.message
    assert SECRET not in caught.value.message


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(KeysFileError, match="UTF-8"):
        parse_keys(b"\xff")


@given(st.binary(max_size=200) | st.text(alphabet='[]key="\n \\#1', max_size=200).map(str.encode))
def test_any_file_is_keys_or_an_error(content: bytes) -> None:
    with suppress(KeysFileError):
        assert parse_keys(content)


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    with pytest.raises(KeysFileError, match=r"keys\.toml: cannot be read: No such file"):
        read_keys(path)
    path.write_bytes(b"#" * (FILE_BYTES_MAX + 1))
    with pytest.raises(KeysFileError, match=r"keys\.toml: exceeds"):
        read_keys(path)
    path.write_text("")
    with pytest.raises(KeysFileError, match=r"keys\.toml: must consist"):
        read_keys(path)
    path.write_text(ONE)
    assert [key.name for key in read_keys(path)] == ["one"]


def test_keys_are_found_by_what_was_offered() -> None:
    keys = Keyring(parse_keys((ONE + TWO).encode()))
    assert len(keys) == 2
    found = keys.find(digest_of("two"))
    assert found is not None
    assert found.name == "two"
    assert keys.find(digest_of("three")) is None
    # As far as a look-up goes it is the same.
    assert keys.find(digest_of("two")[:8] + digest_of("three")[8:]) is None


def test_new_keys_are_long_and_fit_a_header() -> None:
    made = {new_key() for _ in range(100)}
    assert len(made) == 100
    assert all(len(key) >= 43 and key.isascii() and key.isprintable() and " " not in key for key in made)
