"""`thinkedit serve-editor` as a program, asked with curl."""

import base64
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from served_editor import ServedEditor

pytest.importorskip("ray")

from thinkedit.envs.editors.procedural import ProceduralEditor
from thinkedit.envs.world.tasks import WorldTasks

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]

TASK = WorldTasks().task("test", 0)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedEditor]:
    with ServedEditor(tmp_path_factory.mktemp("served"), "--editor=procedural") as running:
        yield running


def curl(*arguments: str) -> Any:
    command = ["curl", "--silent", "--show-error", "--fail", "--noproxy", "*", *arguments]
    return json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)


def test_curl_gets_the_editors_own_edit(served: ServedEditor, tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(TASK.source).save(file, "PNG")
    picture = base64.b64encode(file.getvalue()).decode()
    (tmp_path / "body.json").write_text(json.dumps({"image": picture, "prompt": TASK.instruction, "seed": 3}))
    answer = curl(
        "-H", "Content-Type: application/json", "-d", f"@{tmp_path / 'body.json'}", f"{served.url}/edit"
    )
    assert (answer["success"], answer["seed"], answer["error"]) == (True, 3, None)
    edited = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["edited_image"]))))
    own = ProceduralEditor().edit(TASK.source, TASK.instruction, seed=3)
    np.testing.assert_array_equal(edited, own)


def test_health_and_status_are_the_references(served: ServedEditor) -> None:
    health = curl(f"{served.url}/health")
    assert (health["status"], health["gpu_manager_ready"]) == ("healthy", True)
    status = curl(f"{served.url}/status")
    assert (status["active_workers"], status["system_ready"], status["task_queue_size"]) == (1, True, 0)


def test_another_address_without_a_token_is_refused_before_anything_starts() -> None:
    code = "from thinkedit.cli import app; app()"
    told = subprocess.run(
        [sys.executable, "-c", code, "serve-editor", "--editor=procedural", "--host=0.0.0.0"],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert told.returncode != 0
    assert "THINKEDIT_TOKEN" in told.stderr
    assert "serving" not in told.stdout


def test_it_ends_when_told_to(served: ServedEditor) -> None:
    assert served.stop() == 0
