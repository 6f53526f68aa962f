"""Which addresses need a token, and which tokens will do."""

import socket

import pytest

from thinkedit.actors.serving.address import is_loopback, listen, token_for
from thinkedit.errors import ConfigError

VARIABLE = "THINKEDIT_TEST_TOKEN"
TOKEN = "a-token-of-more-than-16-characters"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("192.0.2.7", False),
        ("::ffff:192.0.2.7", False),
    ],
)
def test_only_loopback_is_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "", "192.0.2.7"])
def test_another_address_needs_a_token(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(ConfigError, match=f"{VARIABLE} is not set: put a secret"):
        token_for(host, VARIABLE)
    monkeypatch.setenv(VARIABLE, TOKEN)
    assert token_for(host, VARIABLE) == TOKEN


def test_loopback_takes_one_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert token_for("127.0.0.1", VARIABLE) is None
    monkeypatch.setenv(VARIABLE, TOKEN)
    assert token_for("127.0.0.1", VARIABLE) == TOKEN


@pytest.mark.parametrize("token", ["short", " ", "a token with spaces in it", "ein-Schlüssel-mit-Umlaut"])
def test_a_poor_token_is_refused_and_not_shown(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, token)
    with pytest.raises(ConfigError) as caught:
        token_for("127.0.0.1", VARIABLE)
    assert token.strip() == "" or token not in str(caught.value)


def test_a_name_that_stands_for_nothing_is_told() -> None:
    with pytest.raises(ConfigError, match=r"no\.such\.host"):
        is_loopback("no.such.host.invalid")


def test_a_taken_port_is_told() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match="choose another --port"):
            listen("127.0.0.1", port)
    assert isinstance(taken, socket.socket)
