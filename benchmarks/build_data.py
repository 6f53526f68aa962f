"""How fast `build-data` is, and in how much memory: python benchmarks/build_data.py [--trajectories N].

Synthetic trajectories of one to five edits, two to a source picture; every picture is a file of its own
content for a source, one of a thousand for an edit. Pictures are tiny: what is measured is our own work,
not the disk.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from thinkedit.configs.schema import DataConfig, ProtocolConfig
from thinkedit.data.build import build
from thinkedit.envs.protocol import Protocol

TASKS = ("subject", "style", "background", "reasoning", "other")
EDITS = 1000  # picture files that edits share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trajectories", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, help="keep input and output here")
    arguments = parser.parse_args()
    if arguments.folder:
        measure(arguments.folder, arguments.trajectories)
    else:
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder), arguments.trajectories)


def measure(folder: Path, count: int) -> None:
    source = folder / "trajectories.jsonl"
    if not source.exists():
        synthesise(folder, count)
    print(f"{count:,} trajectories, {source.stat().st_size / 2**20:.0f} MiB; pictures by reference")
    stages: dict[str, float] = {}
    began = time.perf_counter()
    used = time.process_time()

    def on_progress(stage: str, done: int, whole: int) -> None:
        stages[stage] = time.perf_counter() - began

    before = peak()
    figures = build(source, folder / "out", DataConfig(), Protocol(ProtocolConfig()), on_progress=on_progress)
    wall, cpu = time.perf_counter() - began, time.process_time() - used
    written = figures.records.total()
    read, rest = stages["read"], wall - stages["read"]
    print(f"read, rules of one trajectory  {read:8.1f} s  {count / read:9,.0f} trajectories/s")
    print(f"rules over all, write          {rest:8.1f} s  {written / rest:9,.0f} records/s")
    print(f"all                            {wall:8.1f} s, CPU {cpu:.1f} s: {count / cpu:,.0f} a CPU second")
    print(f"{figures.images:,} images in; records out, each in two formats: {dict(figures.records)}")
    print(f"peak memory {before:.0f} MiB before, {peak():.0f} MiB after")


def peak() -> float:
    """MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def synthesise(folder: Path, count: int) -> None:
    rng = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    edits = [picture(folder / "edits" / f"{k}.ppm", rng) for k in range(EDITS)]
    with open(folder / "trajectories.jsonl", "w", encoding="utf-8") as file:
        for n in range(count):
            if n % 2 == 0:
                source = picture(folder / "sources" / f"{n // 2000:05d}" / f"{n}.ppm", rng)
            file.write(json.dumps(trajectory(n, source.relative_to(folder), folder, edits, rng)) + "\n")


def picture(path: Path, rng: random.Random) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"P6 4 4 255\n" + rng.randbytes(48))
    return path


def trajectory(
    n: int, source: Path, folder: Path, edits: list[Path], rng: random.Random
) -> dict[str, object]:
    length = rng.choice((1, 2, 2, 3, 3, 4, 5))
    words = "make the old wooden fence behind the house white and keep plants, sky and people as they are"
    level = rng.gauss(5, 2)
    steps = []
    for i in range(length):
        level += rng.gauss(0.6, 1.2)
        marks = [min(10.0, max(0.0, round(level + rng.gauss(0, 0.8), 1))) for _ in range(2)]
        stop = i == length - 1 and min(marks) >= 6
        expert = {
            "reason": f"Look {i}: the fence is only partly painted and the plants changed. " * 4,
            "next_prompt": None if stop else f"{words}, attempt {i + 1} of item {n}",
            "stop": stop,
        }
        steps.append(
            {
                "prompt": f"{words}, item {n}" if i == 0 else f"{words}, attempt {i} of item {n}",
                "image": str(rng.choice(edits).relative_to(folder)),
                "score": {"semantic": marks[0], "quality": marks[1]},
                "expert": expert,
            }
        )
    return {
        "trajectory_id": f"t{n:07d}",
        "task_type": rng.choice(TASKS),
        "instruction": f"{words}, item {n}",
        "source_image": str(source),
        "steps": steps,
    }


if __name__ == "__main__":
    sys.exit(main())
