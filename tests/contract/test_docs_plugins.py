"""The plug-ins that the documentation shows pass the contract that it shows beside them."""

import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from thinkedit.configs.load import load_config
from thinkedit.configs.schema import CallLimits, LimitsConfig
from thinkedit.errors import BudgetExceeded, EditorError
from thinkedit.rewards.limits.limiter import Limiter
from thinkedit.rewards.limits.meter import Meter

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


def test_limits_are_written_as_shown(tmp_path: Path) -> None:
    text = (DOCS / "limits.md").read_text(encoding="utf-8")
    whole, rows = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "my_run.yaml").write_text(whole)
    (tmp_path / "rows.yaml").write_text(
        "defaults: [demo, override editor: openai, override judge: viescore, _self_]\n" + rows
    )
    assert load_config(tmp_path / "my_run.yaml", require_plugins=False).limits.budget == 250
    assert load_config(tmp_path / "rows.yaml").limits.editor.per_image == 0.04


async def test_a_metered_plug_in_that_is_shown_pays_and_stops_at_the_budget() -> None:
    text = (DOCS / "limits.md").read_text(encoding="utf-8")
    [code] = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "PaidEditor" in block]
    statuses = iter([200, 500, 200])

    async def edit(request: web.Request) -> web.Response:
        return web.json_response({"image": (await request.json())["image"]}, status=next(statuses))

    app = web.Application()
    app.router.add_post("/edit", edit)
    async with TestServer(app) as server:
        names: dict[str, Any] = {}
        exec(code.replace("http://127.0.0.1:8005", str(server.make_url("/"))), names)
        limiter = Limiter(LimitsConfig(budget=2.5, editor=CallLimits(per_image=1)), None)
        picture = np.zeros((4, 5, 3), np.uint8)
        editor = names["PaidEditor"](None)
        editor.use_meter(Meter(limiter, "editor", 5.0))
        with closing(editor):
            assert (await editor.edit_async(picture, "x", seed=0)).shape == picture.shape
            with pytest.raises(EditorError, match="500"):
                await editor.edit_async(picture, "x", seed=0)
            await editor.edit_async(picture, "x", seed=0)  # the refused one was free
            with pytest.raises(BudgetExceeded):
                await editor.edit_async(picture, "x", seed=0)
