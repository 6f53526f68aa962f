"""Two processes write the same pictures; one is killed in the middle; what was finished stays."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from thinkedit.actors.images import image_key
from thinkedit.actors.store import TrajectoryStore

# Each writer repeats the same eight tasks for ever: every picture is wanted by both at once.
WRITER = """
import sys
sys.path.insert(0, {tests!r})
from episodes import play
from thinkedit.actors.store import TrajectoryStore
episodes = play(8)
store = TrajectoryStore({root!r}, writer=sys.argv[1], shard_size=4)
print("ready", flush=True)
rounds = int(sys.argv[2])
for n in range(rounds):
    for episode in episodes:
        store.append(episode)
store.close()
"""


@pytest.mark.chaos
def test_a_killed_writer_leaves_a_readable_store(tmp_path: Path) -> None:
    root = tmp_path / "trajectories"
    code = WRITER.format(tests=str(Path(__file__).parent.parent), root=str(root))

    def start(name: str, rounds: int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", code, name, str(rounds)], stdout=subprocess.PIPE, text=True
        )

    victim, survivor = start("victim", 1_000_000), start("survivor", 30)
    assert victim.stdout is not None
    assert victim.stdout.readline() == "ready\n"
    deadline = time.monotonic() + 60
    while not list(root.glob("episodes-*-victim-*")):
        assert time.monotonic() < deadline, "the victim never finished a shard"
        time.sleep(0.005)
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    assert survivor.wait(timeout=120) == 0

    store = TrajectoryStore(root)
    episodes = list(store.read(tokens=True))
    finished = {"victim": 0, "survivor": 0}
    for shard in store.shards():
        finished[shard.name.split("-")[2]] += 1
    assert finished["survivor"] == 60
    assert finished["victim"] >= 1
    assert len(episodes) == 4 * sum(finished.values())
    for episode in episodes:
        for turn in episode.turns:
            assert image_key(turn.edited) == turn.edited_key
