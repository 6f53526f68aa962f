"""One chat server for all tests of a module, as good as new for each."""

from collections.abc import Iterator

import pytest
from chat_server import ChatServer, marks


@pytest.fixture(scope="module")
def _server() -> Iterator[ChatServer]:
    with ChatServer() as server:
        yield server


@pytest.fixture
def server(_server: ChatServer) -> ChatServer:
    _server.calls.clear()
    _server.answers = {"sc": [marks(8, 6)], "pq": [marks(9, 7)]}
    _server.choose, _server.delay_s = None, 0.0
    _server.dropped = _server.most_in_flight = 0
    return _server
