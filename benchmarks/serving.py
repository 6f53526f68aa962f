"""Our server and client against a plain one, and how replicas add up: python benchmarks/serving.py.

The plain server is FastAPI with one worker process per replica, which makes one edit after another;
its client posts JSON to it. Ours is `thinkedit serve-editor` with as many replicas, asked by the HTTP
editor. Both serve the same slow editor, which sleeps, in one run.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import httpx
import numpy as np
from served_editor import ServedEditor, slow

from thinkedit.envs.editors.http import HTTPConfig, HTTPEditor
from thinkedit.envs.editors.pictures import encode_png
from thinkedit.envs.world.tasks import WorldTasks
from thinkedit.types import RGB

TESTS = Path(__file__).parents[1] / "tests"
PROMPT = "paint the red star blue, leave the rest alone"
PLAIN = """
import base64, io, os, sys
import numpy as np
from fastapi import FastAPI
from PIL import Image
from slow_editor import SlowConfig, SlowEditor
app = FastAPI()
editor = SlowEditor(SlowConfig(delay_s=float(os.environ["DELAY_S"])))
@app.post("/edit")
async def edit(asked: dict):  # async and blocking: one edit after another
    source = np.asarray(Image.open(io.BytesIO(base64.b64decode(asked["image"]))).convert("RGB"))
    file = io.BytesIO()
    Image.fromarray(editor.edit(source, asked["prompt"], seed=asked["seed"])).save(file, "PNG")
    return {"success": True, "edited_image": base64.b64encode(file.getvalue()).decode()}
"""
Ask = Callable[[RGB, int], Awaitable[object]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay", type=float, default=1.0, help="seconds that an edit sleeps")
    parser.add_argument("--edits", type=int, default=20, help="of each replica, at full load")
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 4])
    arguments = parser.parse_args()
    source = WorldTasks().task("test", 0).source

    print(f"one client after another, {arguments.edits} edits that do not sleep, 1 replica")
    plain_s = alone(plain, 0.0, source, arguments.edits)
    ours_s = alone(ours, 0.0, source, arguments.edits)
    print(f"{'':10} {'ms an edit':>11}\n{'plain':10} {plain_s * 1e3:11.1f}\n{'ours':10} {ours_s * 1e3:11.1f}")
    print(
        f"added: {(ours_s - plain_s) * 1e3:.1f} ms, {(ours_s - plain_s) / arguments.delay:.2%} of an edit\n"
    )

    print(f"full load, edits of {arguments.delay:g} s, 4 clients a replica")
    print(f"{'replicas':>8} {'plain /s':>9} {'ours /s':>9} {'ratio':>6} {'plain eff.':>10} {'ours eff.':>10}")
    for replicas in arguments.replicas:
        rates = [
            loaded(server, arguments.delay, source, arguments.edits * replicas, replicas)
            for server in (plain, ours)
        ]
        best = replicas / arguments.delay
        print(
            f"{replicas:8} {rates[0]:9.2f} {rates[1]:9.2f} {rates[1] / rates[0]:6.2f} "
            f"{rates[0] / best:10.1%} {rates[1] / best:10.1%}",
            flush=True,
        )


def alone(server: Callable[..., object], delay_s: float, source: RGB, edits: int) -> float:
    """Median seconds of an edit with nothing else under way."""

    async def ask(one: Ask) -> float:
        await one(source, 0)
        took = []
        for seed in range(1, edits + 1):
            began = time.perf_counter()
            await one(source, seed)
            took.append(time.perf_counter() - began)
        return statistics.median(took)

    with server(delay_s, 1) as one:  # type: ignore[attr-defined]
        return asyncio.run(ask(one))


def loaded(server: Callable[..., object], delay_s: float, source: RGB, edits: int, replicas: int) -> float:
    """Edits per second while more wait than there are replicas."""

    async def ask(one: Ask) -> float:
        gate = asyncio.Semaphore(4 * replicas)

        async def held(seed: int) -> None:
            async with gate:
                await one(source, seed)

        await asyncio.gather(*(held(seed) for seed in range(replicas)))  # connections, first edits
        began = time.perf_counter()
        await asyncio.gather(*(held(seed) for seed in range(100, 100 + edits)))
        return edits / (time.perf_counter() - began)

    with server(delay_s, replicas) as one:  # type: ignore[attr-defined]
        return asyncio.run(ask(one))


@contextmanager
def ours(delay_s: float, replicas: int) -> Iterator[Ask]:
    with tempfile.TemporaryDirectory() as folder:
        options = slow(delay_s=delay_s, log=Path(folder) / "log", replicas=replicas)
        with ServedEditor(Path(folder), *options) as served:
            config = HTTPConfig(urls=[served.url], binary=True, concurrency=64)
            with closing(HTTPEditor(config)) as editor:
                yield lambda source, seed: editor.edit_async(source, PROMPT, seed=seed)


@contextmanager
def plain(delay_s: float, replicas: int) -> Iterator[Ask]:
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as free:
        (Path(folder) / "plain.py").write_text(PLAIN)
        port = free.getsockname()[1]
        free.close()
        paths = os.pathsep.join([folder, str(TESTS), os.environ.get("PYTHONPATH", "")])
        options = ["plain:app", f"--port={port}", f"--workers={replicas}", "--log-level=error"]
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", *options],
            env=os.environ | {"PYTHONPATH": paths, "DELAY_S": str(delay_s), "OMP_NUM_THREADS": "1"},
        )
        client = httpx.AsyncClient(trust_env=False, timeout=300, limits=httpx.Limits(max_connections=64))

        async def one(source: RGB, seed: int) -> None:
            image = base64.b64encode(encode_png(source)).decode()
            body = {"image": image, "prompt": PROMPT, "seed": seed}
            answer = await client.post(f"http://127.0.0.1:{port}/edit", json=body)
            np.frombuffer(base64.b64decode(answer.raise_for_status().json()["edited_image"]), np.uint8)

        try:
            _wait(port, replicas)
            yield one
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def _wait(port: int, replicas: int) -> None:
    """Until it listens, and all its workers have had time to."""
    while True:
        try:
            httpx.get(f"http://127.0.0.1:{port}/docs", trust_env=False)
            break
        except httpx.TransportError:
            time.sleep(0.2)
    time.sleep(2.0 * replicas)


if __name__ == "__main__":
    main()
