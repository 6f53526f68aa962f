"""Whatever the scores: what is kept of a trajectory, what is made of it, and where it goes."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from trajectory_files import trajectory

from thinkedit.configs.schema import DataConfig
from thinkedit.data.examine import Examiner
from thinkedit.data.formats.lines import Line
from thinkedit.data.formats.trajectories import Trajectory, overalls
from thinkedit.data.index import Index
from thinkedit.data.rules.fates import Fate
from thinkedit.data.rules.summaries import summary
from thinkedit.data.rules.unroll import unrolled
from thinkedit.data.select import select
from thinkedit.envs.protocol import Protocol

mark = st.integers(0, 100).map(lambda tenths: tenths / 10)
graded = st.lists(st.tuples(mark, mark) | st.none(), min_size=1, max_size=6)
equal = st.sampled_from([(4.0, 4.0), (5.0, 5.0), (2.0, 8.0)])  # ties are what rules stumble over
marks = graded | st.lists(equal | st.none(), min_size=1, max_size=6)
EXAMINER = Examiner(DataConfig(keep_immediate_success=True), Protocol())


@given(marks, st.booleans())
def test_the_kept_part_ends_at_the_earliest_best_edit_and_holds_no_gap(
    scores: list[tuple[float, float] | None], satisfied: bool
) -> None:
    whole = trajectory(*scores, satisfied=satisfied)
    before_gap = scores[: scores.index(None)] if None in scores else scores
    kept = EXAMINER.kept(whole)
    if not isinstance(kept, Trajectory):
        assert kept in (Fate.UNGRADED, Fate.SINGLE_EDIT, Fate.NOT_IMPROVED)
        assert (kept is Fate.UNGRADED) == (not before_gap)
        return
    assert kept.steps == whole.steps[: len(kept.steps)]  # a part of what was there, nothing imputed
    assert len(kept.steps) <= len(before_gap)
    known = overalls(msgspec.structs.replace(whole, steps=whole.steps[: len(before_gap)]))
    assert len(kept.steps) - 1 == known.index(max(known))
    assert all(step.score is not None for step in kept.steps)


@given(marks)
def test_each_kept_edit_becomes_one_sample(scores: list[tuple[float, float] | None]) -> None:
    kept = EXAMINER.kept(trajectory(*scores))
    if isinstance(kept, Trajectory):
        *refined, last = unrolled(kept)
        assert [sample.edit for sample in (*refined, last)] == list(range(len(kept.steps)))
        assert [sample.kind for sample in refined] == ["refine"] * (len(kept.steps) - 1)
        assert (last.kind, last.answer) == ("stop", kept.steps[-1].prompt)


row = st.tuples(
    st.lists(equal, min_size=2, max_size=4) | st.lists(st.tuples(mark, mark), min_size=2, max_size=4),
    st.integers(0, 5),  # source
    st.integers(0, 3),  # instruction
    st.sampled_from(["add", "style"]),
)


@settings(max_examples=60)
@given(st.lists(row, max_size=25), st.floats(0, 1), st.floats(1, 3), st.integers(0, 3))
def test_every_trajectory_has_one_fate_and_the_sets_share_nothing(
    rows: list[tuple[list[tuple[float, float]], int, int, str]], share: float, pool: float, seed: int
) -> None:
    config = DataConfig(rl_share=share, rl_pool=pool)
    with TemporaryDirectory() as folder, Index(Path(folder) / "index") as index:
        for n, (scores, source, instruction, task) in enumerate(rows):
            whole = trajectory(*scores, uid=f"t{n}", task_type=task, instruction=f"change {instruction}")
            found = EXAMINER.kept(whole)
            if isinstance(found, Trajectory):
                found = summary(found, n=n, source=f"s{source}", sft_steps=len(found.steps), seed=seed)
            index.add(Line(Path("t"), n, 0, b""), f"t{n}", n, found)
        selection = select(index, config, seed)
        sets = {fate: list(index.rows("n", fate=fate)) for fate in (Fate.RL, Fate.SFT)}
        refused = [uid for uid, _ in index.refused()]
    ids = [each.trajectory_id for found in sets.values() for each in found]
    assert sorted(ids + refused) == sorted(f"t{n}" for n in range(len(rows)))
    assert not {each.source for each in sets[Fate.RL]} & {each.source for each in sets[Fate.SFT]}
    assert len({each.pair for found in sets.values() for each in found}) == len(ids)
    assert len(sets[Fate.RL]) == min(selection.rl_quota, selection.candidates)  # the quota is filled
    assert all(each.variance >= max(selection.theta, 1e-9) for each in sets[Fate.RL])
    good = config.good_at
    assert all(each.variance <= selection.theta or each.lowest >= good for each in sets[Fate.SFT])
