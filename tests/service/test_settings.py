from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import Settings
from service.settings.server import default_data_dir


def test_defaults_serve_on_loopback_without_a_key() -> None:
    settings = Settings()
    assert (settings.host, settings.port) == ("127.0.0.1", 8080)
    assert settings.api_key is None
    assert settings.redis_url is None
    assert settings.cors_origins == ()


def test_every_field_is_documented_and_grouped() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert isinstance(field.json_schema_extra, dict), name
        assert field.json_schema_extra["panel"], name


def test_environment_sets_and_arguments_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASKAHEAD_PORT", "9000")
    monkeypatch.setenv("ASKAHEAD_MAX_SESSIONS", "3")
    settings = Settings(port=9001)
    assert (settings.port, settings.max_sessions) == (9001, 3)


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASKAHEAD_API_KEY", "")
    assert Settings().api_key is None


def test_origins_are_comma_separated_and_normalized(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASKAHEAD_CORS_ORIGINS", "https://App.example.com/, http://localhost:3000")
    assert Settings().cors_origins == ("https://app.example.com", "http://localhost:3000")


def test_level_is_read_in_any_case() -> None:
    assert Settings(log_level="INFO").log_level == "info"


@pytest.mark.parametrize(("name", "canonical"), [("f16", "fp16"), ("Q8_0", "int8"), ("q4_0", "int4"), ("auto", "auto")])
def test_kv_cache_types_have_several_names(name: str, canonical: str) -> None:
    assert Settings(kv_cache_type=name).kv_cache_type == canonical


@pytest.mark.parametrize("context", [None, 0, 256, 1_048_576])
def test_useful_contexts(context: int | None) -> None:
    assert Settings(context=context).context == context


@pytest.mark.parametrize(
    "bad",
    [
        {"context": 255},
        {"context": -1},
        {"kv_cache_type": "q5_1"},
        {"sessions": 0},
        {"cpu_offload_gb": -1},
        {"quantization": ""},
        {"chat_template": "no/such.jinja"},
        {"chat_template": "{% for %}"},
        {"port": 65_536},
        {"port": "x"},
        {"host": ""},
        {"api_key": ""},
        {"api_key": "two words"},
        {"api_key": "schlüssel"},
        {"cors_origins": "app.example.com"},
        {"cors_origins": "https://app.example.com/path"},
        {"redis_url": "http://localhost"},
        {"redis_url": "redis://:pass/word@localhost"},
        {"rate_limit": 0},
        {"rate_limit": "nan"},
        {"rate_burst": 0},
        {"max_requests": 0},
        {"max_subscriptions_per_client": 0},
        {"kv_cache_gb": "nan"},
        {"kv_cache_gb": 0},
        {"log_level": "loud"},
        {"max_sessions": 0},
        {"data_parallel_size": 0},
        {"data_parallel_backend": "tcp"},
        {"data_parallel_size_local": 2},
        {"data_parallel_size_local": 1, "data_parallel_size": 2},
        {"no_such_setting": 1},
    ],
    ids=str,
)
def test_bad_values_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(**bad)
    assert caught.value.errors()[0]["loc"][0] == next(iter(bad))


def test_ranks_of_other_machines_need_the_servers_address() -> None:
    settings = Settings(data_parallel_size=4, data_parallel_size_local=1, data_parallel_address="10.0.0.1")
    assert settings.data_parallel_size_local == 1
    assert Settings(data_parallel_size=4, data_parallel_size_local=4).data_parallel_address is None


def test_secrets_stay_out_of_texts() -> None:
    settings = Settings(api_key="hidden-key", redis_url="redis://:hidden-password@localhost")
    assert "hidden" not in repr(settings)
    with pytest.raises(ValidationError) as caught:
        Settings(api_key="hidden key")
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hidden/word@localhost",
        "redis://:hidden@[localhost",
        "redis://:hidden@localhost:port",
        "http://:hidden@localhost",
    ],
)
def test_what_is_wrong_with_an_address_is_told_without_its_password(url: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(redis_url=url)
    assert caught.value.errors()[0]["msg"].startswith("Value error, must")
    assert "hidden" not in str(caught.value.errors(include_input=False))


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


def test_data_dir_follows_the_platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_data_dir() == tmp_path / "askahead"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert default_data_dir() == Path.home() / ".local" / "share" / "askahead"


def test_data_dir_is_made_absolute() -> None:
    assert Settings(data_dir="~/x").data_dir == Path.home() / "x"
    assert Settings(data_dir="x").data_dir.is_absolute()


def test_models_dir_is_made_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().models_dir is None
    monkeypatch.setenv("ASKAHEAD_MODELS_DIR", "~/models")
    assert Settings().models_dir == Path.home() / "models"
    assert Settings(api_keys_file="~/keys.toml").api_keys_file == Path.home() / "keys.toml"
