"""The command that serves a judge: closed to other machines without a token, and no key on it."""

import os
import sys

import pytest

pytest.importorskip("vllm")

from thinkedit.actors.serving.judge import KEY_VARIABLE, command, environment
from thinkedit.errors import ConfigError

VARIABLE = "THINKEDIT_TEST_TOKEN"
TOKEN = "a-token-of-more-than-16-characters"


def test_it_listens_on_loopback_and_is_called_as_its_model() -> None:
    told = command("a/model")
    assert told[:3] == [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    at = {told[k]: told[k + 1] for k in range(3, len(told) - 1)}
    assert (at["--host"], at["--port"], at["--served-model-name"]) == ("127.0.0.1", "8000", "a/model")


def test_what_is_set_here_wins_over_further_arguments() -> None:
    told = command("a/model", more=["--host", "0.0.0.0", "--dtype", "float32"])
    assert told.index("0.0.0.0") < told.index("127.0.0.1")
    assert "float32" in told


@pytest.mark.parametrize("argument", ["--api-key", "--api_key", "--api-key=secret"])
def test_a_key_on_the_command_line_is_refused_and_not_shown(argument: str) -> None:
    with pytest.raises(ConfigError, match="environment") as caught:
        command("a/model", more=[argument, "secret"])
    assert "secret" not in str(caught.value)


def test_another_address_needs_a_token_which_travels_in_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with pytest.raises(ConfigError, match=f"{VARIABLE} is not set"):
        environment("0.0.0.0", VARIABLE)
    assert KEY_VARIABLE not in environment("127.0.0.1", VARIABLE)
    monkeypatch.setenv(VARIABLE, TOKEN)
    assert environment("0.0.0.0", VARIABLE)[KEY_VARIABLE] == TOKEN
    assert TOKEN not in command("a/model", host="0.0.0.0")


def test_the_users_own_settings_of_vllm_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "7")
    assert environment("127.0.0.1", VARIABLE)["VLLM_CPU_KVCACHE_SPACE"] == "7"
    assert environment("127.0.0.1", VARIABLE)["PATH"] == os.environ["PATH"]
