"""One copy of an editor, without Ray: what it holds back, what it tells, when it is ill."""

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest
from slow_editor import install, record

from thinkedit.actors.serving import replica as module
from thinkedit.actors.serving.replica import Replica
from thinkedit.actors.serving.work import PROBE, PROBE_PROMPT, EditorBroke, EditorSpec, Made
from thinkedit.envs.editors.procedural import ProceduralEditor
from thinkedit.errors import EditorError


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "edits"


@pytest.fixture
def replica(tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch) -> Replica:
    install(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    made = Replica(EditorSpec("slow", {"delay_s": 0.3, "log": str(log)}, timeout_s=1.0))
    assert [line.moment for line in record(log)] == ["begin", "end"], "it tried itself out"
    return made


async def test_it_makes_the_editor_s_edit_and_says_how_long_that_took(replica: Replica) -> None:
    made = await replica.edit(PROBE, PROBE_PROMPT, 3)
    assert isinstance(made, Made)
    np.testing.assert_array_equal(made.picture, ProceduralEditor().edit(PROBE, PROBE_PROMPT, seed=3))
    assert made.seconds >= 0.3


async def test_an_edit_that_can_not_be_stopped_keeps_its_place(replica: Replica, log: Path) -> None:
    left = asyncio.ensure_future(replica.edit(PROBE, PROBE_PROMPT, 1))
    await asyncio.sleep(0.1)
    left.cancel()
    stays = asyncio.ensure_future(replica.edit(PROBE, PROBE_PROMPT, 2))
    await asyncio.sleep(0)
    gone_while_waiting = asyncio.ensure_future(replica.edit(PROBE, PROBE_PROMPT, 4))
    await asyncio.sleep(0.05)
    gone_while_waiting.cancel()
    assert isinstance(await stays, Made)
    assert [line.moment for line in record(log)] == ["begin", "end"] * 3
    assert left.cancelled()
    assert gone_while_waiting.cancelled()


async def test_what_it_refuses_is_told_as_it_says_it(replica: Replica) -> None:
    refusal = await replica.edit(np.zeros((8, 8, 3), np.uint8), PROBE_PROMPT, 0)
    assert type(refusal) is EditorError
    assert "pictures of the world only" in str(refusal)


@pytest.mark.parametrize(
    ("result", "kind"), [(ValueError("another's secret"), EditorBroke), (np.zeros_like(PROBE), EditorError)]
)
async def test_what_is_no_edit_goes_out_typed_and_without_what_it_may_hold(
    replica: Replica, monkeypatch: pytest.MonkeyPatch, result: object, kind: type[Exception]
) -> None:
    def broken(*_: object, **__: object) -> object:
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(replica._editor, "edit", broken)
    failure = await replica.edit(PROBE, PROBE_PROMPT, 0)
    assert type(failure) is kind
    assert "secret" not in str(failure)


async def test_it_is_ill_when_an_edit_does_not_come_back(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit = asyncio.ensure_future(replica.edit(PROBE, PROBE_PROMPT, 1))
    await asyncio.sleep(0.1)
    replica.check_health()
    now = time.monotonic()
    monkeypatch.setattr(module, "monotonic", lambda: now + 1.0 + module.HUNG_S)
    with pytest.raises(RuntimeError, match="under way"):
        replica.check_health()
    await edit
    replica.check_health()
