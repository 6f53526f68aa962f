"""Scores are only ever compared with scores of the same judge: stored, cached and fresh ones."""

from dataclasses import replace
from pathlib import Path

import pytest

from thinkedit.configs.load import load_config
from thinkedit.envs.build import Parts
from thinkedit.envs.editors.cache import CachedJudge
from thinkedit.envs.world.judge import WorldJudge
from thinkedit.errors import JudgeMismatch
from thinkedit.types import RGB, JudgeIdentity, StoredState, Verdict


class Rephrased(WorldJudge):
    """The world's judge with other rules, whose author forgot to raise the revision."""

    def __init__(self) -> None:
        super().__init__()
        self._rules = "other rules"
        self.calls = 0

    def judge(self, source: RGB, edited: RGB, instruction: str) -> Verdict:
        self.calls += 1
        return super().judge(source, edited, instruction)


@pytest.mark.parametrize("field", ["judge_id", "prompt_hash"])
async def test_a_stored_state_of_another_judge_is_refused_at_the_start(field: str) -> None:
    parts = Parts.from_config(load_config("demo"))
    task = parts.tasks.task("train", 0)
    verdict = WorldJudge().judge(task.source, task.source, task.instruction)
    state = StoredState(task=task, edited=task.source, prompt=task.instruction, verdict=verdict)
    await parts.session().start(state, 0)
    drifted = replace(state, verdict=replace(verdict, **{field: "of last year"}))
    with pytest.raises(JudgeMismatch, match=r"of last year.*judge the stored edits again") as caught:
        await parts.session().start(drifted, 0)
    assert "world@1" in str(caught.value)


def test_a_kept_verdict_of_another_judge_is_no_answer(tmp_path: Path) -> None:
    task = Parts.from_config(load_config("demo")).tasks.task("train", 0)
    old, new = CachedJudge(WorldJudge(), tmp_path), Rephrased()
    old.judge(task.source, task.source, task.instruction)
    again = CachedJudge(new, tmp_path)
    verdict = again.judge(task.source, task.source, task.instruction)
    assert (new.calls, verdict.prompt_hash) == (1, "other rules")
    again.judge(task.source, task.source, task.instruction)
    assert CachedJudge(Rephrased(), tmp_path).judge(task.source, task.source, task.instruction) == verdict
    assert new.calls == 1


def test_a_cache_tells_the_identities_of_its_judge() -> None:
    told: frozenset[JudgeIdentity] | None = CachedJudge(WorldJudge()).identities()
    assert told == WorldJudge().identities()
