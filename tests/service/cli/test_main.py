from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from service.access.keyring import Key, digest_of, parse_keys
from service.cli.main import app
from service.settings import Settings
from streams.errors import ModelError
from tests.service.cli.probe import Probe


def test_no_flags_are_the_defaults() -> None:
    assert Probe().given() == Settings()


def test_flags_beat_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASKAHEAD_PORT", "9000")
    monkeypatch.setenv("ASKAHEAD_HOST", "0.0.0.0")
    settings = Probe().given("--port", "9001")
    assert (settings.port, settings.host) == (9001, "0.0.0.0")


@pytest.mark.parametrize("flag", ["--context", "--ctx"])
def test_context_has_two_names(flag: str) -> None:
    assert Probe().given(flag, "4096").context == 4096


def test_lists_are_comma_separated() -> None:
    settings = Probe().given("--cors-origins", "https://a.example,https://b.example")
    assert settings.cors_origins == ("https://a.example", "https://b.example")


def test_every_setting_has_a_flag_and_a_variable() -> None:
    text = subprocess.run(
        [sys.executable, "-c", "from service.cli.main import app; app()", "serve", "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=os.environ | {"COLUMNS": "250", "TERMINAL_WIDTH": "250"},
    ).stdout
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')}" in text
        assert f"ASKAHEAD_{name.upper()}" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--port", "x"), "askahead: --port: input should be a valid integer"),
        (("--port", "70000"), "askahead: --port: input should be less than or equal to 65535"),
        (("--ctx", "5"), "askahead: --context: must be 0 (the model's trained length) or at least 256 tokens"),
        (("--context", "-5"), "askahead: --context: input should be greater than or equal to 0"),
        (("--dtype", "int4"), "askahead: --dtype: input should be 'auto', 'float32', 'bfloat16' or 'float16'"),
        (("--api-key", "a b"), "askahead: --api-key: must be printable ASCII"),
        (("--chat-template", "no/such.jinja"), "askahead: --chat-template: names no file that can be read"),
        (("--redis-url", "http://x"), "askahead: --redis-url: must start with one of redis://"),
    ],
)
def test_bad_flags_are_one_sentence(arguments: tuple[str, ...], message: str) -> None:
    code, output = Probe()(*arguments)
    assert code == 2
    assert output.startswith(message)
    assert output.count("\n") == 1


def test_bad_variables_are_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASKAHEAD_MAX_SESSIONS", "many")
    code, output = Probe()()
    assert code == 2
    assert output.startswith("askahead: ASKAHEAD_MAX_SESSIONS: input should be a valid integer")


def test_unknown_flags_are_refused() -> None:
    assert Probe()("--no-such-flag")[0] == 2


def test_a_server_that_cannot_run_says_why() -> None:
    code, output = Probe(ModelError("there is no such model"))()
    assert (code, output) == (1, "askahead: there is no such model\n")


def test_help_lists_the_commands() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    assert "serve" in result.stdout


def test_bad_flags_fail_before_anything_is_loaded() -> None:
    script = (
        "import sys\nfrom service.cli.main import app\n"
        "try: app(['serve', '--port', 'x'])\n"
        "except SystemExit as exit: assert exit.code == 2\n"
        "assert not {'vllm', 'service.app'} & set(sys.modules), 'loaded'\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_a_new_key_is_printed_with_the_entry_that_makes_it_valid() -> None:
    result = CliRunner().invoke(app, ["key", "--name", "acme", "--prefix", "acme-"])
    assert result.exit_code == 0
    key = re.search(r"^ak_\S+$", result.stdout, re.MULTILINE)
    assert key is not None
    entry = result.stdout[result.stdout.index("[[key]]") :]
    assert parse_keys(entry.encode()) == (Key("acme", digest_of(key[0]), "acme-"),)
    assert key[0] not in entry
    plain = CliRunner().invoke(app, ["key"]).stdout
    (unnamed,) = parse_keys(plain[plain.index("[[key]]") :].encode())
    assert unnamed.name == f"key-{unnamed.digest.hex()[:8]}"
    assert unnamed.prefix == ""


@pytest.mark.parametrize("arguments", [("--name", "two words"), ("--prefix", "a/b"), ("--prefix", "")])
def test_keys_have_names_and_prefixes_that_a_file_takes(arguments: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, ["key", *arguments])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"askahead: {arguments[0]}: must be")
    assert "ak_" not in result.output


def test_help_loads_nothing_that_is_heavy() -> None:
    script = (
        "import sys\nfrom service.cli.main import app\n"
        "try: app(['--help'])\n"
        "except SystemExit as exit: assert not exit.code\n"
        "heavy = {'aiohttp', 'redis', 'msgpack', 'vllm', 'torch', 'numpy', 'pyarrow', 'huggingface_hub'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("command", ["push", "ask", "watch", "sessions", "flash", "replay", "bench", "doctor", "serve"])
def test_every_command_has_a_page_of_help(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete_commands(shell: str) -> None:
    script = "from service.cli.main import app; app(prog_name='askahead')"
    # What --install-completion puts into the shell's own files.
    shown = subprocess.run(
        [sys.executable, "-c", script, "--show-completion", shell],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "_ASKAHEAD_COMPLETE" in shown.stdout
    asked = {
        "bash": ("COMP_WORDS", "COMP_CWORD"),
        "zsh": ("_TYPER_COMPLETE_ARGS", ""),
        "fish": ("_TYPER_COMPLETE_ARGS", ""),
    }
    words, index = asked[shell]
    environment = {
        "_ASKAHEAD_COMPLETE": f"complete_{shell}",
        words: "askahead wa",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    completed = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | environment | ({index: "1"} if index else {}),
    )
    assert "watch" in completed.stdout
    assert "serve" not in completed.stdout


def test_whoever_stops_reading_ends_it_quietly() -> None:
    script = (
        "import asyncio\nfrom service.cli.failures import finish\n"
        "async def work():\n    while True: print('line'); await asyncio.sleep(0)\n"
        "finish(work())\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "line\n"
    process.stdout.close()
    assert (process.wait(60), process.stderr.read()) == (141, "")
    process.stderr.close()


def test_a_command_that_is_terminated_ends_in_order() -> None:
    script = (
        "import asyncio\nfrom service.cli.failures import finish\n"
        "async def work():\n"
        "    try: print('begun', flush=True); await asyncio.sleep(60)\n"
        "    finally: print('closed', flush=True)\n"
        "finish(work())\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.terminate()
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (143, "closed\n")
