"""Episodes with an editor behind a real server that hangs, fails or lies: what becomes of each turn."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import closing
from functools import lru_cache

import numpy as np
import pytest
from plain import Insists
from server_process import ServerProcess

from thinkedit.actors.play import play
from thinkedit.configs.load import load_config
from thinkedit.configs.schema import Config
from thinkedit.envs.build import Parts
from thinkedit.types import End, Episode, Outcome

pytestmark = pytest.mark.chaos

TRIES = 2
FAULTS = {
    "hangs": Outcome.TIMEOUT,
    "500": Outcome.EDITOR_FAILED,
    "broken base64": Outcome.EDITOR_FAILED,
    "constant": Outcome.EDITOR_FAILED,
    "wrong size": Outcome.EDITOR_FAILED,
}
PATIENCE_S = dict.fromkeys(FAULTS, 20.0) | {"hangs": 0.6}


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess("edit_server.py") as server:
        with closing(parts(server)) as made:
            assert episode(made).outcome is Outcome.OK  # its first edit takes long, and none after
        yield server


def parts(server: ServerProcess, try_timeout_s: float = 20.0) -> Parts:
    """The demo's, but for the editor, which is behind the server and gives up soon."""
    return Parts.from_config(config(server.url, try_timeout_s))


@lru_cache
def config(url: str, try_timeout_s: float) -> Config:
    quick = dict(
        urls=f"[{url}]", tries=TRIES, try_timeout_s=try_timeout_s, backoff_s=0.01, breaker_rest_s=0.1
    )
    options = [f"editor.options.{name}={value}" for name, value in quick.items()]
    return load_config("demo", ["editor=http", *options])


def episode(parts: Parts, number: int = 0) -> Episode:
    task = parts.tasks.task("train", number)
    return asyncio.run(play(parts.session(), task, 0, Insists(), group=task.uid))


@pytest.mark.parametrize(("fault", "outcome"), FAULTS.items())
@pytest.mark.parametrize("good", [0, 1, 2], ids=["first edit", "first turn", "second turn"])
def test_a_fault_ends_the_episode_typed_without_a_reward_after_bounded_calls(
    server: ServerProcess, fault: str, outcome: Outcome, good: int
) -> None:
    ends = []
    for _ in range(2):
        server.answer(["good"] * good + [fault])
        with closing(parts(server, PATIENCE_S[fault])) as made:
            found = episode(made)
        assert server.calls() <= good + TRIES
        ends.append((found.outcome, [(t.outcome, t.reward, t.detail) for t in found.turns], server.calls()))
    assert ends[0] == ends[1], "the same on every run"
    assert found.outcome is outcome
    assert len(found.turns) == good
    if not good:
        assert (found.first, found.first_edit, found.final) == (None, None, None)
        return
    *before, last = found.turns
    assert all(turn.outcome is Outcome.OK and turn.reward is not None for turn in before)
    assert (last.outcome, last.end, last.truncated) == (outcome, End.FAILED, True)
    assert (last.reward, last.after) == (None, None)
    assert last.detail
    seen = found.first_edit if good == 1 else before[-1].edited
    np.testing.assert_array_equal(last.edited, seen)  # type: ignore[arg-type]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_not_kept_and_the_next_episode_is_as_if_nothing_had_been(
    server: ServerProcess, fault: str
) -> None:
    server.answer(["good"])
    with closing(parts(server)) as made:
        healthy = episode(made)
    with closing(parts(server, PATIENCE_S[fault])) as made:
        server.answer([fault])
        assert episode(made).outcome is FAULTS[fault]
        server.answer(["good"])
        again = episode(made)
    assert [turn.reward for turn in again.turns] == [turn.reward for turn in healthy.turns]
    np.testing.assert_array_equal(again.turns[-1].edited, healthy.turns[-1].edited)


def test_a_server_that_stands_still_is_a_timeout_and_is_waited_for_no_longer(server: ServerProcess) -> None:
    server.answer(["good"])
    with closing(parts(server, 0.6)) as made:
        assert episode(made, 1).outcome is Outcome.OK
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            assert episode(made, 2).outcome is Outcome.TIMEOUT
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
        assert episode(made, 3).outcome is Outcome.OK


def test_a_server_that_is_killed_is_an_editor_failure(server: ServerProcess) -> None:
    with ServerProcess("edit_server.py") as victim, closing(parts(victim)) as made:
        assert episode(made, 1).outcome is Outcome.OK
        victim.process.kill()
        victim.process.wait()
        found = episode(made, 2)
        assert found.outcome is Outcome.EDITOR_FAILED
        assert (found.first, found.turns) == (None, [])
