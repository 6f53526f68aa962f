"""`thinkedit serve-judge` as a program, with the tiny model that comes with thinkedit.

Its marks mean nothing (it never learned to judge), but everything about them is real: vLLM, two
pictures over HTTP, a reply held to the judge's JSON schema, two numbers in [0, 10].
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("vllm")

from thinkedit import plugins
from thinkedit.envs.world.tasks import WorldTasks
from thinkedit.errors import JudgeUnreachable
from thinkedit.learner.policy.shipped import BASE
from thinkedit.rewards.judges.viescore_prompts import QUESTIONS
from thinkedit.types import Verdict

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]

TOKEN = "a-token-of-more-than-16-characters"
START_S = 600
CLIENT = httpx.Client(trust_env=False, timeout=120)
TASK = WorldTasks().task("test", 0)


class Server:
    def __init__(self, log: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        code = "from thinkedit.cli import app; app()"
        command = [sys.executable, "-c", code, "serve-judge", str(BASE), "--name=tiny", f"--port={self.port}"]
        # A reply is some words; without a limit the tiny model's reasoning may never end.
        more = ["--", "--dtype=float32", "--max-num-seqs=8", "--max-model-len=8192"]
        environment = os.environ | {"THINKEDIT_TOKEN": TOKEN, "OMP_NUM_THREADS": "1"}
        self._log = log
        with open(log, "wb") as file:
            self.process = subprocess.Popen(
                command + more, env=environment, stdout=file, stderr=subprocess.STDOUT
            )

    def wait(self) -> None:
        end = time.monotonic() + START_S
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if self.get("/health").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.5)
        raise AssertionError(self._log.read_text()[-4000:])

    def get(self, path: str, token: str = TOKEN) -> httpx.Response:
        return CLIENT.get(self.url + path, headers={"Authorization": f"Bearer {token}"})

    def close(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("serve") / "log.txt")
    try:
        running.wait()
        yield running
    finally:
        if running.process.poll() is None:
            running.close()


def short() -> dict[str, Any]:
    """The judge's own schema, with an end to the reasoning: the tiny model doesn't know when to stop."""
    schema = QUESTIONS.schema
    schema["properties"]["reasoning"] |= {"maxLength": 60}
    return schema


def judged(server: Server, monkeypatch: pytest.MonkeyPatch, token: str = TOKEN, **options: Any) -> Verdict:
    monkeypatch.setenv("JUDGE_KEY", token)
    plain = dict(
        model="tiny",
        base_url=f"{server.url}/v1",
        api_key_env="JUDGE_KEY",
        request_timeout_s=300.0,
        max_tokens=200,
        tries=1,
    )
    judge = plugins.build("judges", "viescore", plain | options)
    try:
        verdict: Verdict = judge.judge(TASK.source, 255 - TASK.source, TASK.instruction)
    finally:
        judge.close()
    return verdict


def test_viescore_grades_two_pictures_against_it(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    held = {"structured_outputs": {"json": short()}}
    verdict = judged(server, monkeypatch, output="text", extra_body=held)
    for half in ("semantic", "quality"):
        [marks] = verdict.notes[half]["marks"]
        assert getattr(verdict.scores, half) == min(marks)
        assert all(mark in range(11) for mark in marks)
        assert verdict.notes[half]["faults"] == []
    assert verdict.notes["models"] == ["tiny"]
    again = judged(server, monkeypatch, output="text", extra_body=held)
    assert again == verdict  # greedy


def test_nothing_is_answered_without_the_token(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("/v1/models", "/metrics", "/health", "/docs"):
        assert server.get(path, token="not-the-token-that-it-wants").status_code == 401
        assert server.get(path).status_code == 200
    with pytest.raises(JudgeUnreachable, match="401"):
        judged(server, monkeypatch, token="not-the-token-that-it-wants")


@pytest.mark.parametrize(("scheme", "status"), [("http", 400), ("file", 500)])
def test_no_address_or_path_in_a_message_is_fetched(
    server: Server, tmp_path: Path, scheme: str, status: int
) -> None:
    """The statuses are vLLM's own."""
    (tmp_path / "a.png").write_bytes(b"not for clients")
    url = {"http": "http://127.0.0.1:9/a.png", "file": (tmp_path / "a.png").as_uri()}[scheme]
    message = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}
    answer = CLIENT.post(
        f"{server.url}/v1/chat/completions",
        json={"model": "tiny", "messages": [message], "max_tokens": 1},
        headers={"Authorization": f"Bearer {TOKEN}"},
    )
    assert answer.status_code == status
    assert "allowed" in answer.text


def test_a_body_without_end_is_refused_at_once(server: Server) -> None:
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {TOKEN}\r\n"
        f"Content-Length: {2 * 10**9}\r\n\r\n{{"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.sendall(head.encode())
        assert client.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_it_ends_when_told_to(server: Server) -> None:
    assert server.close() in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
