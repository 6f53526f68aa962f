"""The plug-ins that the documentation shows pass the contract that it shows beside them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from thinkedit.configs.load import load_config

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("page", "module"),
    [("new-editor.md", "lamp_editor"), ("judges.md", "sharp_judge"), ("rewards.md", "thrifty")],
)
def test_a_plug_in_that_is_shown_passes_the_contract(page: str, module: str, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    [test] = [block for block in blocks if f"from {module} import" in block]
    plug_in = blocks[blocks.index(test) - 1]
    (tmp_path / f"{module}.py").write_text(plug_in, encoding="utf-8")
    (tmp_path / f"test_{module}.py").write_text(test, encoding="utf-8")
    command = [sys.executable, *"-m pytest -q -p no:cacheprovider --rootdir . .".split()]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert said.returncode == 0, said.stdout


def test_the_cache_is_used_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (DOCS / "caching.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    [recipe] = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code, names)
    (tmp_path / "shared.yaml").write_text(recipe)
    assert load_config(tmp_path / "shared.yaml").editor.cache_gib == 50
