"""Group statistics hold whatever the batch looks like."""

import numpy as np
import pytest
from estimates import of_reply
from hypothesis import given
from hypothesis import strategies as st

from thinkedit.configs.schema import AdvantageConfig
from thinkedit.learner.advantages import Rows

turns = st.lists(
    st.tuples(st.floats(-1, 1), st.sampled_from("abc"), st.floats(-1, 1)), min_size=1, max_size=4
)
episodes = st.lists(
    st.tuples(st.integers(0, 3), turns, st.sampled_from([True, True, True, False])), max_size=12
)
configs = st.builds(
    AdvantageConfig,
    estimator=st.sampled_from(["turn", "episode", "outcome"]),
    gamma=st.floats(0, 1),
    scale=st.sampled_from(["none", "group_std", "batch_std"]),
)
Batch = list[tuple[int, list[tuple[float, str, float]], bool]]


def rows_of(batch: Batch) -> Rows:
    """An episode marked False fails in its last turn, which then has no reward."""
    flat = [
        (group, i, t, state, reward, valid or t < len(steps) - 1, improvement)
        for i, (group, steps, valid) in enumerate(batch)
        for t, (reward, state, improvement) in enumerate(steps)
    ]
    columns = [list(column) for column in zip(*flat, strict=True)] or [[] for _ in range(7)]
    valid = np.array(columns[5], bool)
    return Rows(
        group=np.array(columns[0], int),
        episode=np.array(columns[1], int),
        turn=np.array(columns[2], int),
        state=np.array(columns[3], str),
        reward=np.where(valid, np.array(columns[4], float), np.nan),
        valid=valid,
        improvement=np.array(columns[6], float),
    )


@given(batch=episodes, config=configs)
def test_advantages_are_finite_and_failures_get_zero(batch: Batch, config: AdvantageConfig) -> None:
    rows = rows_of(batch)
    advantages, diagnostics = of_reply(rows, config)
    failed = {i for i, (_, _, valid) in enumerate(batch) if not valid}
    assert np.isfinite(advantages).all()
    assert all(advantages[k] == 0.0 for k in range(len(rows)) if rows.episode[k] in failed)
    assert diagnostics.episodes_invalid == len(failed)
    assert diagnostics.groups_too_few + diagnostics.groups_no_variance <= diagnostics.groups


@given(batch=episodes, config=configs, data=st.data())
def test_row_order_does_not_matter(batch: Batch, config: AdvantageConfig, data: st.DataObject) -> None:
    rows = rows_of(batch)
    order = np.array(data.draw(st.permutations(range(len(rows)))), int)
    np.testing.assert_array_equal(of_reply(rows.take(order), config)[0], of_reply(rows, config)[0][order])


@given(batch=episodes, config=configs)
def test_survivors_get_what_they_would_get_alone(batch: Batch, config: AdvantageConfig) -> None:
    rows = rows_of(batch)
    survivors = np.flatnonzero([batch[i][2] for i in rows.episode]).astype(int)
    np.testing.assert_array_equal(
        of_reply(rows, config)[0][survivors], of_reply(rows.take(survivors), config)[0]
    )


@given(batch=episodes, gamma=st.floats(0, 1), scale=st.sampled_from(["none", "group_std", "batch_std"]))
def test_other_groups_do_not_matter_without_batch_scale(batch: Batch, gamma: float, scale: str) -> None:
    config = AdvantageConfig(gamma=gamma, scale="none" if scale == "batch_std" else scale)
    rows = rows_of(batch)
    mine = np.flatnonzero(rows.group == 0)
    np.testing.assert_array_equal(of_reply(rows, config)[0][mine], of_reply(rows.take(mine), config)[0])


@given(batch=episodes)
def test_start_state_advantages_cancel_out(batch: Batch) -> None:
    """At turn 0 all siblings share the state, so leaving one out keeps the group's mean at zero."""
    same_start = [
        (g, [(r, "start" if t == 0 else s, d) for t, (r, s, d) in enumerate(ts)], v) for g, ts, v in batch
    ]
    rows = rows_of(same_start)
    advantages, _ = of_reply(rows, AdvantageConfig(estimator="turn"))
    for group in np.unique(rows.group):
        assert advantages[(rows.group == group) & (rows.turn == 0)].sum() == pytest.approx(0, abs=1e-6)
