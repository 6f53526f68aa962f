"""A cell played with a scripted expert in the real world, and read back as it was."""

from pathlib import Path

import pytest

from thinkedit.actors.inference.records import Mode
from thinkedit.actors.play import Context, Reply
from thinkedit.actors.policy import ScriptedPolicy
from thinkedit.configs.load import load_config
from thinkedit.envs.build import Parts
from thinkedit.envs.world.experts import AwareExpert
from thinkedit.errors import DataError, EditorError
from thinkedit.evals.study.plan import Cell
from thinkedit.evals.study.play import CellFailed, Played, play_cell, read_cell
from thinkedit.types import RGB, Observation

COUNT = 12


@pytest.fixture
def parts() -> Parts:
    return Parts.from_config(load_config("demo"))


async def played(parts: Parts, cell: Cell, file: Path) -> list[Played]:
    counted: list[int] = []
    policy = ScriptedPolicy(AwareExpert.from_parts(parts))
    await play_cell(parts, cell, policy, file, count=COUNT, progress=counted.append)
    assert counted == list(range(1, COUNT + 1))
    return read_cell(file, COUNT)


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


async def test_a_first_prompt_that_cant_be_read_leaves_the_instruction(parts: Parts, tmp_path: Path) -> None:
    class Mute:
        async def reply(self, observation: Observation, context: Context) -> Reply:
            return Reply("well, well")

    async def play(mode: Mode) -> list[Played]:
        file = tmp_path / f"{mode}.jsonl"
        await play_cell(parts, Cell(name="m", thinker="mute", mode=mode, turns=1), Mute(), file, count=COUNT)
        return read_cell(file, COUNT)

    before, during = await play(Mode.BEFORE), await play(Mode.WHILE)
    assert {row.stop for row in before} == {row.stop for row in during} == {"thinker_unreadable"}
    assert [row.judged for row in before] == [row.judged for row in during]
    assert all(row.predicted is None and not row.failed for row in before)


async def test_an_edit_that_fails_gives_no_score(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a first edit nor a later one: what stood before an outage is not what the thinker made."""
    works, calls = parts.editor.edit_async, iter(range(1000))
    monkeypatch.setattr("thinkedit.evals.study.play.MOST_FAILED", 0.5)

    async def flaky(source: RGB, prompt: str, *, seed: int) -> RGB:
        if next(calls) % 8 == 7:
            raise EditorError("HTTP 500")
        return await works(source, prompt, seed=seed)

    monkeypatch.setattr(parts.editor, "edit_async", flaky)
    rows = await played(parts, Cell(name="c", thinker="aware_expert"), tmp_path / "c.jsonl")
    failed = [row for row in rows if row.failed]
    assert 0 < len(failed) <= COUNT / 2
    assert all((row.stop, row.judged) == ("failed", ()) and "HTTP 500" in row.detail for row in failed)


async def test_a_cell_of_failures_is_not_kept(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(source: RGB, prompt: str, *, seed: int) -> RGB:
        raise EditorError("HTTP 500")

    monkeypatch.setattr(parts.editor, "edit_async", broken)
    with pytest.raises(CellFailed, match=r"12 of 12 tasks failed, the first with: .*HTTP 500"):
        await played(parts, Cell(name="c", thinker="aware_expert"), tmp_path / "c.jsonl")
    assert not list(tmp_path.iterdir())


async def test_a_cell_of_another_number_of_tasks_is_refused(parts: Parts, tmp_path: Path) -> None:
    await played(parts, Cell(name="c", thinker="aware_expert"), tmp_path / "c.jsonl")
    with pytest.raises(DataError, match=r"c\.jsonl holds 12 tasks, and 200 are asked for"):
        read_cell(tmp_path / "c.jsonl", 200)
