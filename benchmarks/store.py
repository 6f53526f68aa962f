"""How fast the trajectory store writes, opens and reads: python benchmarks/store.py [--episodes N].

Episodes are real ones of the demo's world, two turns each; the first few hundred are repeated.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from episodes import play

from thinkedit.actors.rows import changed
from thinkedit.actors.store import TrajectoryStore
from thinkedit.configs.schema import RewardConfig
from thinkedit.evals.rescore import Rescoring, rescore
from thinkedit.rewards.rubric import Rubric


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--shards", type=int, default=100, help="as a run of so many steps would leave")
    arguments = parser.parse_args()
    count = arguments.episodes
    played = play(min(400, count), garbled=0.02)

    with tempfile.TemporaryDirectory() as folder:
        store = TrajectoryStore(folder, shard_size=max(1, count // arguments.shards))

        def write() -> None:
            for i in range(count):
                store.append(changed(played[i % len(played)], uid=str(i)))
            store.close()

        timed(f"write {count:,} episodes", write)
        size = sum(path.stat().st_size for path in store.shards())
        print(f"{len(store.shards())} shards, {size / 2**20:.1f} MiB without pictures")
        store = TrajectoryStore(folder)
        timed("open and count", lambda: len(store))
        timed("frame, a row per turn", store.frame)
        timed("frame, a row per episode", lambda: store.frame("episode"))
        timed("read every episode", lambda: sum(1 for _ in store.read()))
        timed("read every episode with token ids", lambda: sum(1 for _ in store.read(tokens=True)))

        def again() -> None:
            rubric = Rubric.from_config(RewardConfig(profile="paper"))
            for _ in rescore(store.read(), rubric, accept_at=8.0, into=Rescoring()):
                pass

        timed("score every turn again", again)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MiB")


def timed(what: str, work: Callable[[], Any]) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    print(f"{what:36} {time.perf_counter() - wall:6.2f} s wall {time.process_time() - cpu:6.2f} s cpu")


if __name__ == "__main__":
    main()
