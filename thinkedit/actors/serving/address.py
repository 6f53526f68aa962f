"""Where a server listens, and whom it lets in."""

from __future__ import annotations

import os
import socket
from ipaddress import ip_address

from thinkedit.envs.editors.remote import secret_from
from thinkedit.errors import ConfigError

TOKEN_LENGTH = 16  # characters, at least: a shorter one can be guessed


def token_for(host: str, variable: str) -> str | None:
    """The bearer token that clients must bring; None where none is needed.

    On loopback a token is asked for only if the variable is set.

    Args:
        host: name or address to listen on.
        variable: the environment variable that holds the token.

    Raises:
        ConfigError: other machines could reach the host and there is no token, or a poor one.
    """
    if not os.environ.get(variable):
        if is_loopback(host):
            return None
        raise ConfigError(
            f"{host!r} can be reached from other machines, and {variable} is not set: put a secret of at "
            f"least {TOKEN_LENGTH} characters there (python -c 'import secrets; "
            f"print(secrets.token_urlsafe(32))'), or listen on 127.0.0.1"
        )
    token = secret_from(variable, "the server's token")
    assert token is not None, "a variable was named"
    if len(token) < TOKEN_LENGTH:
        raise ConfigError(f"the token in {variable} has {len(token)} characters, fewer than {TOKEN_LENGTH}")
    return token


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it, under every address that the name stands for.

    Raises:
        ConfigError: the name stands for nothing.
    """
    try:
        found = socket.getaddrinfo(host or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ConfigError(f"host {host!r}: {error}") from error
    return all(ip_address(str(address[4][0]).partition("%")[0]).is_loopback for address in found)


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections already; port 0 picks a free one.

    Raises:
        ConfigError: the address is taken or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigError(f"can't listen on {host}, port {port}: {error}; choose another --port") from error
