"""The editor in examples/my_editor is a stranger's package: nothing of ours names it, and it serves."""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import plain
import pytest

from thinkedit import plugins
from thinkedit.configs.load import load_config
from thinkedit.envs.build import Parts
from thinkedit.envs.editors.cache import CachedEditor
from thinkedit.types import End, Outcome

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "my_editor"
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package installed into it, from a copy, so that no build is left in ours."""
    folder = tmp_path_factory.mktemp("stranger")
    shutil.copytree(EXAMPLE, folder / "my_editor", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    install = "-m uv pip install --quiet --no-deps --no-build-isolation --offline --no-cache".split()
    where = ["--python", sys.executable, "--target", str(folder / "site"), str(folder / "my_editor")]
    subprocess.run([sys.executable, *install, *where], check=True)
    return folder / "site"


def run(site: Path, *command: str | Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(site), "COLUMNS": "100"}
    return subprocess.run(
        list(map(str, command)),
        env=environment,
        cwd=site,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    ).stdout


def test_it_is_below_sixty_lines_of_python() -> None:
    assert sum(len(path.read_text().splitlines()) for path in EXAMPLE.rglob("*.py")) < 60


def test_nothing_of_ours_names_it() -> None:
    named = [p for p in (ROOT / "thinkedit").rglob("*") if p.is_file() and b"my_editor" in p.read_bytes()]
    assert not named
    assert "polite" not in plugins.available("editors")


def test_it_is_listed_like_ours(site: Path) -> None:
    listed = [line.split() for line in run(site, BIN / "thinkedit", "plugins", "editors").splitlines()]
    assert ["polite", "my-editor", "my_editor:PoliteEditor"] in listed


def test_it_passes_the_contract(site: Path) -> None:
    test = site.parent / "my_editor" / "test_my_editor.py"
    said = run(site, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test)
    assert " passed" in said
    assert "failed" not in said


@pytest.mark.slow
def test_one_line_trains_a_thinker_for_it_in_the_demo(site: Path) -> None:
    said = run(site, BIN / "thinkedit", "demo", "editor.name=polite", "--dry-run")
    assert ["editor", "polite"] in [line.replace("│", " ").split() for line in said.splitlines()]
    assert "not runnable" not in said


def test_an_episode_is_played_with_it(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(site)
    parts = Parts.from_config(load_config(EXAMPLE / "polite.yaml", ["editor.options.blunt=0"]))
    assert isinstance(parts.editor, CachedEditor)
    session, task = parts.session(), parts.tasks.task("train", 0)
    first = asyncio.run(session.start(task, seed=0))
    np.testing.assert_array_equal(first.edited, task.source)  # nobody said please
    reply = plain.reply(f"please {task.instruction}", semantic=0, quality=10)
    turn = asyncio.run(session.step(reply))
    assert turn.outcome is Outcome.OK
    assert turn.after is not None
    assert turn.after.scores.semantic > turn.before.scores.semantic
    assert turn.reward is not None
    turn = asyncio.run(session.step(reply))
    assert turn.end is End.REPEATED
