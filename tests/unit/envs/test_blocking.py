"""The event loop behind the blocking environments."""

import asyncio
import gc
import subprocess
import sys
import threading

import pytest

from thinkedit.envs.blocking import Blocking


async def double(value: int) -> int:
    await asyncio.sleep(0)
    return 2 * value


async def fail() -> None:
    raise LookupError("gone")


def test_it_runs_one_loop_for_all_calls_and_stops_it() -> None:
    gc.collect()
    before, blocking = set(threading.enumerate()), Blocking()
    assert set(threading.enumerate()) == before
    assert [blocking.run(double(k)) for k in range(3)] == [0, 2, 4]
    [thread] = set(threading.enumerate()) - before
    with pytest.raises(LookupError, match="gone"):
        blocking.run(fail())
    blocking.close()
    blocking.close()
    assert not thread.is_alive()
    assert blocking.run(double(4)) == 8
    blocking.close()


def test_it_stops_when_it_is_forgotten() -> None:
    gc.collect()
    before, blocking = set(threading.enumerate()), Blocking()
    blocking.run(double(1))
    [thread] = set(threading.enumerate()) - before
    del blocking
    gc.collect()
    assert not thread.is_alive()


def test_an_env_that_nobody_closes_leaves_quietly() -> None:
    code = (
        "import gymnasium, thinkedit\n"
        "env = gymnasium.make_vec('thinkedit/Edit-v0', num_envs=2)\n"
        "env.reset(seed=0)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stderr == ""
