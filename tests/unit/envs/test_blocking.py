"""The event loop behind the blocking environments."""

import asyncio
import gc
import subprocess
import sys
import threading

import pytest

from thinkedit.envs.blocking import Blocking


def threads() -> int:
    return sum(thread.name == "thinkedit-env" for thread in threading.enumerate())


async def double(value: int) -> int:
    await asyncio.sleep(0)
    return 2 * value


async def fail() -> None:
    raise LookupError("gone")


def test_it_runs_one_loop_for_all_calls_and_stops_it() -> None:
    before, blocking = threads(), Blocking()
    assert threads() == before
    assert [blocking.run(double(k)) for k in range(3)] == [0, 2, 4]
    assert threads() == before + 1
    with pytest.raises(LookupError, match="gone"):
        blocking.run(fail())
    blocking.close()
    blocking.close()
    assert threads() == before
    assert blocking.run(double(4)) == 8
    blocking.close()


def test_it_stops_when_it_is_forgotten() -> None:
    before, blocking = threads(), Blocking()
    blocking.run(double(1))
    del blocking
    gc.collect()
    assert threads() == before


def test_an_env_that_nobody_closes_leaves_quietly() -> None:
    code = (
        "import gymnasium, thinkedit\n"
        "env = gymnasium.make_vec('thinkedit/Edit-v0', num_envs=2)\n"
        "env.reset(seed=0)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stderr == ""
