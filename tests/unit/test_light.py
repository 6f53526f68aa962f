"""The environments and rewards alone must not pull in the training stack."""

import json
import subprocess
import sys

HEAVY = ("torch", "ray", "verl", "vllm", "transformers", "tensordict", "diffusers")


def loaded_by(code: str) -> set[str]:
    """Top-level modules that are loaded after `code` ran in a process of its own."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in json.loads(answer.stdout.splitlines()[-1])}


def test_environments_and_rewards_are_light() -> None:
    modules = loaded_by(
        "import pkgutil, importlib, thinkedit.envs, thinkedit.rewards\n"
        "for room in (thinkedit.envs, thinkedit.rewards):\n"
        "    for module in pkgutil.walk_packages(room.__path__, room.__name__ + '.'):\n"
        "        importlib.import_module(module.name)"
    )
    assert "gymnasium" in modules
    assert not modules & set(HEAVY)


def test_a_played_episode_is_light_too() -> None:
    modules = loaded_by(
        "import asyncio\n"
        "from thinkedit.configs.load import load_config\n"
        "from thinkedit.envs.build import Parts\n"
        "parts = Parts.from_config(load_config('demo'))\n"
        "session = parts.session()\n"
        "asyncio.run(session.start(parts.tasks.task('train', 0), seed=0))\n"
        "asyncio.run(session.step('no reply at all'))"
    )
    assert not modules & set(HEAVY)


def test_an_editor_that_needs_a_gpu_is_light_until_it_edits() -> None:
    modules = loaded_by(
        "from thinkedit.configs.load import load_config\n"
        "from thinkedit.envs.build import Parts\n"
        "Parts.from_config(load_config('demo', ['editor=flux_kontext'])).close()"
    )
    assert "thinkedit" in modules
    assert not modules & set(HEAVY)


def test_help_is_light() -> None:
    assert not loaded_by("import thinkedit.cli") & {*HEAVY, "hydra", "omegaconf"}
