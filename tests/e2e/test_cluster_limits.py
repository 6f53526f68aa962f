"""Four processes and one limiter: the rate that a server sees, and the last cent of a budget."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from chat_server import ChatServer
from limited_worker import LimitedWorker

from thinkedit.actors.limits import cluster_limiter
from thinkedit.cluster import start_ray
from thinkedit.configs.load import load_config
from thinkedit.configs.schema import Config
from thinkedit.rewards.limits.ledger import LEDGER, read_ledger

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]

TESTS = str(Path(__file__).parents[1])
PROCESSES, LIMIT, SECONDS = 4, 60, 80.0


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    path = os.pathsep.join([TESTS, os.environ.get("PYTHONPATH", "")])
    start_ray(
        num_cpus=PROCESSES,
        include_dashboard=False,
        object_store_memory=100 * 2**20,
        runtime_env={"env_vars": {"PYTHONPATH": path}},
    )
    yield
    ray.shutdown()


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as server:
        yield server


def config(server: ChatServer, run: Path, *limits: str) -> Config:
    options = [f"judge.options.base_url={server.base_url}", "judge.options.api_key_env=null"]
    return load_config("demo", ["judge=viescore", f"run_dir={run}", *options, *limits])


def workers(config: Config) -> list[Any]:
    return [ray.remote(LimitedWorker).remote(config, number) for number in range(PROCESSES)]


def total(run: Path) -> dict[str, Any]:
    ledger = read_ledger(run / LEDGER)
    assert ledger is not None
    fields: dict[str, Any] = ledger["total"]
    return fields


def heaviest_minute(moments: list[float]) -> int:
    return max(sum(start <= at < start + 60 for at in moments) for start in moments)


@pytest.mark.chaos
def test_four_processes_never_exceed_the_rate_even_when_the_limiter_is_killed(
    tmp_path: Path, server: ChatServer
) -> None:
    limits = [f"limits.judge.requests_per_minute={LIMIT}", "limits.judge.per_request=1"]
    settings = config(server, tmp_path, *limits)
    limiter = cluster_limiter(settings)
    assert limiter is not None
    limiter.flush()
    busy = workers(settings)
    asked = [worker.judge_for.remote(SECONDS, at_once=4) for worker in busy]
    while len(server.calls) < LIMIT // 2:
        ended, _ = ray.wait(asked, timeout=0.1)
        ray.get(ended)  # raises what ended it so soon
    ray.kill(limiter._actor, no_restart=False)
    verdicts = ray.get(asked)
    ray.get([worker.close.remote() for worker in busy])

    moments = [call.at for call in server.calls]
    assert heaviest_minute(moments) <= LIMIT
    pace = (len(moments) - 1) / (moments[-1] - moments[0]) * 60
    assert pace > 0.8 * LIMIT, "a limiter that lets nothing through keeps any limit"
    assert min(verdicts) > 0
    assert 2 * sum(verdicts) == len(moments)
    ledger = total(tmp_path)
    # A call let through in the very moment of the kill is let through again, and counted twice.
    assert 0 <= ledger["calls"] - len(moments) <= 2, ledger
    # Who had no connection in time tried once more: counted twice, and paid once.
    assert len(moments) <= ledger["spend"] <= ledger["calls"], ledger


def test_four_processes_spend_a_budget_to_the_last_cent_and_no_more(
    tmp_path: Path, server: ChatServer
) -> None:
    settings = config(server, tmp_path, "limits.judge.per_request=0.1", "limits.budget=5")
    limiter = cluster_limiter(settings)
    busy = workers(settings)
    outcomes: Counter[str] = sum(ray.get([worker.play.remote(8) for worker in busy]), Counter())
    ray.get([worker.close.remote() for worker in busy])
    assert len(server.calls) == 50
    assert (total(tmp_path)["calls"], total(tmp_path)["spend"]) == (50, 5)
    assert outcomes.keys() <= {"ok", "budget"}
    assert outcomes["budget"] > outcomes["ok"]
    del limiter
