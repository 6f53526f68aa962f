"""The event loop behind blocking environments, remote editors and judges."""

import asyncio
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from thinkedit.background import BackgroundLoop
from thinkedit.errors import JudgeError


@pytest.fixture
def background() -> Iterator[BackgroundLoop]:
    gc.collect()
    loop = BackgroundLoop("the judge", JudgeError)
    yield loop
    loop.close()


async def double(value: int) -> int:
    await asyncio.sleep(0)
    return 2 * value


async def fail() -> None:
    raise LookupError("gone")


async def hang(began: threading.Event, cancelled: threading.Event) -> None:
    began.set()
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        cancelled.set()
        raise


def test_it_runs_one_loop_for_all_calls_and_stops_it(background: BackgroundLoop) -> None:
    before = set(threading.enumerate())
    assert [background.run(double(k)) for k in range(3)] == [0, 2, 4]
    [thread] = set(threading.enumerate()) - before
    with pytest.raises(LookupError, match="gone"):
        background.run(fail())
    background.close()
    background.close()
    assert not thread.is_alive()
    assert background.run(double(4)) == 8


async def test_it_serves_callers_that_have_a_loop(background: BackgroundLoop) -> None:
    assert background.run(double(1)) == 2
    assert await asyncio.gather(*(background.run_async(double(k)) for k in range(3))) == [0, 2, 4]


async def test_who_gives_up_cancels_the_work(background: BackgroundLoop) -> None:
    began, cancelled = threading.Event(), threading.Event()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await background.run_async(hang(began, cancelled))
    assert await asyncio.to_thread(cancelled.wait, 10)


async def test_closing_it_frees_whoever_waits_and_runs_the_last_work_after(
    background: BackgroundLoop,
) -> None:
    events = [(threading.Event(), threading.Event()) for _ in range(2)]
    asked = [
        asyncio.create_task(background.run_async(hang(*events[0]))),
        asyncio.create_task(asyncio.to_thread(lambda: background.run(hang(*events[1])))),
    ]
    for began, _ in events:
        await asyncio.to_thread(began.wait, 10)
    seen: list[bool] = []

    async def last() -> None:
        seen.extend(cancelled.is_set() for _, cancelled in events)

    await asyncio.to_thread(background.close, last)
    assert seen == [True, True]
    for result in await asyncio.gather(*asked, return_exceptions=True):
        assert isinstance(result, JudgeError)
        assert "the judge was closed" in str(result)


def test_nothing_is_left_to_do_where_nothing_ran(background: BackgroundLoop) -> None:
    async def last() -> None:
        raise AssertionError

    background.close(last)


def test_calls_while_it_is_closed_end_one_way_or_the_other(background: BackgroundLoop) -> None:
    outcomes: list[object] = []

    def ask() -> None:
        for k in range(50):
            try:
                outcomes.append(background.run(double(k)))
            except JudgeError as error:
                outcomes.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        background.close()
    assert len(outcomes) == 200


def test_it_starts_anew_in_a_forked_child(background: BackgroundLoop) -> None:
    background.run(double(1))
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if background.run(double(2)) == 4 else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert background.run(double(3)) == 6


def test_it_stops_when_it_is_forgotten() -> None:
    gc.collect()
    before, background = set(threading.enumerate()), BackgroundLoop("the judge", JudgeError)
    background.run(double(1))
    [thread] = set(threading.enumerate()) - before
    del background
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
