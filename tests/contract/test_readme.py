"""What the README shows works as shown."""

import asyncio
import re
import tomllib
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from thinkedit import plugins
from thinkedit.configs.load import load_config
from thinkedit.envs.build import Parts

README = Path(__file__).parents[2] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README's plug-ins as an installed package."""
    (tmp_path / "my_package.py").write_text("\n".join(b for b in blocks("python") if "class " in b))
    info = tmp_path / "my_package-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1\n")
    (toml,) = blocks("toml")
    points = tomllib.loads(toml)["project"]["entry-points"]
    points["thinkedit.reward_terms"] = {"brevity": "my_package:Brevity"}
    text = "".join(
        f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in p.items()) for group, p in points.items()
    )
    (info / "entry_points.txt").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)


def test_the_environment_starts() -> None:
    (code,) = [block for block in blocks("python") if "gymnasium" in block]
    names: dict[str, object] = {}
    exec(code, names)
    env = names["env"]
    assert isinstance(env, gymnasium.Env)
    assert env.observation_space.contains(names["observation"])
    env.close()


@pytest.mark.usefixtures("installed")
def test_the_editor_edits_and_the_term_counts() -> None:
    assert plugins.available("editors")["invert"].dist.name == "my-package"  # type: ignore[union-attr]
    weights = "reward.weights={format: 0.4, semantic: 0.4, brevity: 0.2}"
    config = load_config("demo", ["editor.name=invert", weights])
    parts = Parts.from_config(config)
    session = parts.session()
    task = parts.tasks.task("train", 0)
    observation = asyncio.run(session.start(task, seed=0))
    np.testing.assert_array_equal(observation.edited, 255 - task.source)
    reply = '<think>all grey</think>\n<score>{"semantic": 0, "quality": 2}</score>\n<answer>paint it</answer>'
    turn = asyncio.run(session.step(reply))
    assert turn.reward is not None
    assert turn.reward.terms["brevity"] == pytest.approx(1 - 2 / 50)
    assert turn.reward.weights["brevity"] == 0.2


def test_the_readme_fits_two_screens() -> None:
    shown = re.sub(r"<!--.*?-->", "", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(shown.splitlines()) <= 120
