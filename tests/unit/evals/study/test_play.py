"""A cell played with a scripted expert in the real world, and read back as it was."""

from pathlib import Path

import pytest
from plain import raising

from thinkedit.actors.inference.records import Mode
from thinkedit.actors.policy import ScriptedPolicy
from thinkedit.configs.load import load_config
from thinkedit.envs.build import Parts
from thinkedit.envs.world.experts import AwareExpert
from thinkedit.errors import EditorError
from thinkedit.evals.study.plan import Cell
from thinkedit.evals.study.play import Played, play_cell, read_cell

COUNT = 12


@pytest.fixture
def parts() -> Parts:
    return Parts.from_config(load_config("demo"))


async def played(parts: Parts, cell: Cell, file: Path) -> list[Played]:
    counted: list[int] = []
    policy = ScriptedPolicy(AwareExpert.from_parts(parts))
    await play_cell(parts, cell, policy, file, count=COUNT, progress=counted.append)
    assert counted == list(range(1, COUNT + 1))
    return read_cell(file)


async def test_the_expert_who_knows_the_editor_rises(parts: Parts, tmp_path: Path) -> None:
    rows = await played(parts, Cell(name="a", thinker="aware_expert", turns=3), tmp_path / "a.jsonl")
    assert [row.task for row in rows] == [parts.tasks.task("test", i).uid for i in range(COUNT)]
    first, last = (sum(row.after(edits)[0] for row in rows) for edits in (1, None))
    assert last > first + 20
    assert all(row.predicted == pytest.approx(row.judged[0], abs=0.5) for row in rows)
    assert {row.stop for row in rows} <= {"accepted", "repeated", "turn_limit"}
    again = await played(parts, Cell(name="a", thinker="aware_expert", turns=3), tmp_path / "b.jsonl")
    assert again == rows


async def test_thinking_before_makes_one_edit(parts: Parts, tmp_path: Path) -> None:
    cell = Cell(name="b", thinker="aware_expert", mode=Mode.BEFORE, turns=1)
    rows = await played(parts, cell, tmp_path / "b.jsonl")
    assert {len(row.judged) for row in rows} == {1}
    assert {row.predicted for row in rows} == {None}


async def test_an_edit_that_fails_gives_no_score(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail = raising(EditorError("HTTP 500"))

    async def broken(*_: object, **__: object) -> object:
        return fail(None)

    monkeypatch.setattr(parts.editor, "edit_async", broken)
    rows = await played(parts, Cell(name="c", thinker="aware_expert"), tmp_path / "c.jsonl")
    assert all(row.failed and row.judged == () for row in rows)
    assert "HTTP 500" in rows[0].detail
