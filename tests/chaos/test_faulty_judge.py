"""Episodes with a judge behind a real server that refuses, limits, garbles or says nothing."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from functools import lru_cache
from time import monotonic

import pytest
from plain import Insists
from server_process import ServerProcess

from thinkedit.actors.play import play
from thinkedit.configs.load import load_config
from thinkedit.configs.schema import Config
from thinkedit.envs.build import Parts
from thinkedit.types import End, Episode, Outcome, Scores

pytestmark = pytest.mark.chaos

TRIES = 3
GOOD = Scores(6.0, 6.0)  # of the marks 8 and 6, the lower one


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess("chat_server.py") as server:
        yield server


def episode(server: ServerProcess, request_timeout_s: float = 20.0) -> Episode:
    """The demo's first, but for the judge, which is behind the server and gives up soon."""
    with closing(Parts.from_config(config(server.url, request_timeout_s))) as parts:
        task = parts.tasks.task("train", 0)
        return asyncio.run(play(parts.session(), task, 0, Insists(), group=task.uid))


@lru_cache
def config(url: str, request_timeout_s: float) -> Config:
    quick = dict(base_url=f"{url}/v1", api_key_env="null", tries=TRIES, backoff_s=0.01, max_wait_s=2)
    quick["request_timeout_s"] = request_timeout_s
    options = [f"judge.options.{name}={value}" for name, value in quick.items()]
    return load_config("demo", ["judge=viescore", *options])


@pytest.mark.parametrize("half", ["sc", "pq"])
@pytest.mark.parametrize("good", [0, 1], ids=["first edit", "first turn"])
@pytest.mark.parametrize(
    ("fault", "outcome", "asked"),
    [
        ("refuses", Outcome.JUDGE_FAILED, TRIES),
        ("429", Outcome.JUDGE_FAILED, TRIES),
        ("429 for long", Outcome.JUDGE_FAILED, 1),
        ("one-element list", Outcome.JUDGE_FAILED, TRIES),
        ("value 11", Outcome.JUDGE_FAILED, TRIES),
        ("nothing", Outcome.JUDGE_FAILED, TRIES),
    ],
)
def test_a_fault_ends_the_episode_typed_without_a_reward_after_bounded_calls(
    server: ServerProcess, half: str, good: int, fault: str, outcome: Outcome, asked: int
) -> None:
    ends = []
    for _ in range(2):
        server.answer({"sc": ["good"], "pq": ["good"]} | {half: ["good"] * good + [fault]})
        found = episode(server)
        ends.append((found.outcome, [(t.outcome, t.reward, t.detail) for t in found.turns], server.calls()))
    assert ends[0] == ends[1], "the same on every run"
    assert found.outcome is outcome
    assert server.calls() == {"sc": good + 1, "pq": good + 1} | {half: good + asked}
    assert found.first_edit is not None
    if not good:
        assert (found.first, found.turns, found.final) == (None, [], None)
        return
    assert found.first is not None
    assert found.first.scores == GOOD
    [turn] = found.turns
    assert (turn.outcome, turn.end, turn.truncated) == (outcome, End.FAILED, True)
    assert (turn.reward, turn.after) == (None, None)
    assert turn.detail


def test_silence_is_a_timeout_after_bounded_calls(server: ServerProcess) -> None:
    server.answer({"sc": ["good"], "pq": ["good", "hangs"]})
    found = episode(server, request_timeout_s=0.6)
    assert server.calls() == {"sc": 2, "pq": 1 + TRIES}
    [turn] = found.turns
    assert (found.outcome, turn.outcome, turn.reward) == (Outcome.TIMEOUT, Outcome.TIMEOUT, None)


@pytest.mark.parametrize("half", ["sc", "pq"])
def test_quotation_marks_inside_the_reasoning_cost_nothing(server: ServerProcess, half: str) -> None:
    server.answer({"sc": ["good"], "pq": ["good"]})
    healthy = episode(server)
    server.answer({"sc": ["good"], "pq": ["good"]} | {half: ["unescaped quotes"]})
    found = episode(server)
    assert server.calls() == {"sc": 3, "pq": 3}
    assert found.outcome is Outcome.OK
    assert [turn.reward for turn in found.turns] == [turn.reward for turn in healthy.turns]


def test_a_server_that_asks_for_patience_gets_it_and_answers(server: ServerProcess) -> None:
    server.answer({"sc": ["429", "good"], "pq": ["good"]})
    began = monotonic()
    found = episode(server)
    assert monotonic() - began >= 0.2
    assert found.outcome is Outcome.OK
    assert found.first is not None
    assert found.first.scores == GOOD
    assert server.calls() == {"sc": 4, "pq": 3}
