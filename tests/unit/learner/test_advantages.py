from dataclasses import replace

import numpy as np
import pytest
from estimates import of_reply

from thinkedit.configs.schema import AdvantageConfig
from thinkedit.errors import UnknownName
from thinkedit.learner.advantages import Advantages, Rows, estimate, spread


def rows(
    *episodes: tuple[str, list[float]],
    states: list[list[str]] | None = None,
    invalid: frozenset[tuple[int, int]] = frozenset(),
    improvements: list[list[float]] | None = None,
) -> Rows:
    """Each episode is (group, rewards by turn); by default no two later states coincide."""
    flat = [(group, i, t, r) for i, (group, rewards) in enumerate(episodes) for t, r in enumerate(rewards)]
    return Rows(
        group=np.array([g for g, *_ in flat]),
        episode=np.array([f"e{i}" for _, i, *_ in flat]),
        turn=np.array([t for _, _, t, _ in flat]),
        state=np.array(
            [(states[i][t] if states else "start" if t == 0 else f"{i}.{t}") for _, i, t, _ in flat]
        ),
        reward=np.array([r for *_, r in flat]),
        valid=np.array([(i, t) not in invalid for _, i, t, _ in flat]),
        improvement=None if improvements is None else np.array([improvements[i][t] for _, i, t, _ in flat]),
    )


def test_turn_compares_with_siblings_in_the_same_state() -> None:
    batch = rows(
        ("g", [0.0, 1.0]),
        ("g", [0.0, 0.5]),
        ("g", [0.0, 0.1]),
        states=[["s", "a"], ["s", "a"], ["s", "b"]],
    )
    advantages, diagnostics = of_reply(batch, AdvantageConfig(estimator="turn"))
    np.testing.assert_allclose(
        advantages,
        # turn 0: 1 - mean(.5, .1); turn 1: alone in state b, so against both others
        [0.7, 0.5, -0.05, -0.5, -0.65, 0.1 - 0.75],
    )
    assert diagnostics.same_state_share == pytest.approx(5 / 6)


def test_turn_compares_with_siblings_that_got_as_far_where_no_state_is_shared() -> None:
    batch = rows(("g", [0.0, 0.8]), ("g", [0.0, 0.2]), ("g", [0.5]))
    advantages, diagnostics = of_reply(batch, AdvantageConfig(estimator="turn"))
    np.testing.assert_allclose(advantages[[1, 3]], [0.6, -0.6])
    assert diagnostics.same_state_share == pytest.approx(3 / 5)


def test_turn_compares_with_nothing_where_nobody_else_got_as_far() -> None:
    advantages, _ = of_reply(rows(("g", [0.6]), ("g", [0.1, 0.9])), AdvantageConfig(estimator="turn"))
    np.testing.assert_allclose(advantages, [0.6 - 1.0, 1.0 - 0.6, 0.9 - 0.0])


def test_turn_discounts_later_rewards() -> None:
    config = AdvantageConfig(estimator="turn", gamma=0.5)
    advantages, _ = of_reply(rows(("g", [0.0, 1.0]), ("g", [0.2])), config)
    np.testing.assert_allclose(advantages, [0.5 - 0.2, 1.0, 0.2 - 0.5])


def test_episode_gives_every_turn_the_whole_return() -> None:
    batch = rows(("g", [0.5, 0.5]), ("g", [0.4]), ("h", [1.0]), ("h", [0.0]))
    advantages, _ = of_reply(batch, AdvantageConfig(estimator="episode"))
    np.testing.assert_allclose(advantages, [0.6, 0.6, -0.6, 1.0, -1.0])


def test_outcome_compares_final_improvements() -> None:
    batch = rows(("g", [9.0, 9.0]), ("g", [0.0]), improvements=[[0.8, 0.3], [-0.1]])
    advantages, _ = of_reply(batch, AdvantageConfig(estimator="outcome"))
    np.testing.assert_allclose(advantages, [0.4, 0.4, -0.4])


def test_outcome_refuses_rows_without_improvement() -> None:
    with pytest.raises(ValueError, match="improvement"):
        of_reply(rows(("g", [1.0]), ("g", [0.0])), AdvantageConfig(estimator="outcome"))


def test_an_episode_with_a_failed_turn_leaves_its_group() -> None:
    batch = rows(("g", [0.9, float("nan")]), ("g", [0.3]), ("g", [0.1]), invalid=frozenset({(0, 1)}))
    advantages, diagnostics = of_reply(batch, AdvantageConfig())
    np.testing.assert_allclose(advantages, [0, 0, 0.2, -0.2])
    assert diagnostics.episodes_invalid == 1


def test_groups_that_teach_nothing_are_counted() -> None:
    batch = rows(
        ("one left", [0.9]),
        ("one left", [0.2]),
        ("equal", [0.3, 0.4]),
        ("equal", [0.3, 0.4]),
        ("fine", [1.0]),
        ("fine", [0.0]),
        states=[["s"], ["s"], ["s", "a"], ["s", "a"], ["s"], ["s"]],
        invalid=frozenset({(1, 0)}),
    )
    advantages, diagnostics = of_reply(batch, AdvantageConfig())
    np.testing.assert_array_equal(advantages, [0, 0, 0, 0, 0, 0, 1, -1])
    assert (diagnostics.groups, diagnostics.groups_too_few, diagnostics.groups_no_variance) == (3, 1, 1)
    assert diagnostics.metrics()["advantage/groups_too_few"] == 1.0


def test_group_std_gives_every_group_the_same_size() -> None:
    batch = rows(("g", [1.0]), ("g", [0.0]), ("h", [0.01]), ("h", [0.0]))
    advantages, _ = of_reply(batch, AdvantageConfig(scale="group_std"))
    np.testing.assert_allclose(advantages, [1, -1, 1, -1])


def test_batch_std_keeps_the_proportions() -> None:
    batch = rows(("g", [1.0]), ("g", [0.0]), ("h", [0.5]), ("h", [0.0]))
    raw, _ = of_reply(batch, AdvantageConfig())
    scaled, diagnostics = of_reply(batch, AdvantageConfig(scale="batch_std"))
    np.testing.assert_allclose(scaled * diagnostics.scale, raw)
    assert np.mean(scaled**2) == pytest.approx(1.0)


def test_an_empty_batch_is_no_error() -> None:
    empty = np.zeros(0)
    batch = Rows(
        group=empty,
        episode=empty,
        turn=empty.astype(int),
        state=empty,
        reward=empty,
        valid=empty.astype(bool),
    )
    advantages, diagnostics = of_reply(batch, AdvantageConfig())
    assert len(advantages) == 0
    assert diagnostics.groups == 0


def test_a_valid_row_must_have_a_finite_reward() -> None:
    with pytest.raises(ValueError, match="not finite"):
        of_reply(rows(("g", [float("nan")]), ("g", [0.0])), AdvantageConfig())


def test_missing_and_repeated_turns_are_refused() -> None:
    batch = rows(("g", [0.0, 1.0]), ("g", [0.0]))
    for index in ([1, 2], [0, 0, 1, 2]):
        with pytest.raises(ValueError, match="turns of an episode"):
            of_reply(batch.take(np.array(index)), AdvantageConfig())


def test_unknown_names_offer_the_nearest() -> None:
    batch = rows(("g", [0.0]), ("g", [0.0]))
    with pytest.raises(UnknownName, match="Did you mean 'turn'"):
        of_reply(batch, AdvantageConfig(estimator="turns"))
    with pytest.raises(UnknownName, match="'group_std'"):
        of_reply(batch, AdvantageConfig(scale="groupstd"))


def test_causal_credit_leaves_the_critics_reward_out_of_the_answer() -> None:
    batch = replace(rows(("g", [0.3, 0.5]), ("g", [0.9])), settled=np.array([0.1, 0.4, 0.5]))
    plain, _ = estimate(batch, AdvantageConfig())
    causal, _ = estimate(batch, AdvantageConfig(credit="causal"))
    np.testing.assert_allclose(plain.answer, plain.reply)
    np.testing.assert_allclose(causal.reply, plain.reply)
    # turn 0: the siblings' settled rewards lie 0.4 apart; turn 1 has nobody to compare with
    np.testing.assert_allclose(causal.answer[:, 0], plain.reply[:, 0] - [-0.4, 0.4, 0.4])


def test_causal_credit_is_scaled_by_the_same_factor() -> None:
    batch = replace(rows(("g", [0.0]), ("g", [1.0])), settled=np.array([0.0, 0.5]))
    causal, diagnostics = estimate(batch, AdvantageConfig(credit="causal", scale="batch_std"))
    np.testing.assert_allclose(causal.reply[:, 0], [-1.0, 1.0])
    np.testing.assert_allclose(causal.answer[:, 0], [-0.5, 0.5])
    assert diagnostics.scale == 1.0


def test_the_answers_weight_is_the_answers_alone() -> None:
    batch = replace(rows(("g", [0.0]), ("g", [1.0])), settled=np.array([0.0, 0.5]))
    weighted, _ = estimate(batch, AdvantageConfig(credit="causal", answer_weight=4.0))
    np.testing.assert_allclose(weighted.reply[:, 0], [-1.0, 1.0])
    np.testing.assert_allclose(weighted.answer[:, 0], [-2.0, 2.0])


def test_think_can_be_paid_less_for_what_the_answer_brought() -> None:
    batch = replace(rows(("g", [0.0]), ("g", [1.0])), settled=np.array([0.0, 0.5]))
    for weight, expected in ((1.0, 1.0), (0.5, 0.75), (0.0, 0.5)):
        found, _ = estimate(batch, AdvantageConfig(credit="causal", think_weight=weight))
        np.testing.assert_allclose(found.reply[:, 0], [-expected, expected])
        np.testing.assert_allclose(found.answer[:, 0], [-0.5, 0.5])


def test_the_critic_can_be_judged_where_siblings_that_wrote_the_same_part() -> None:
    batch = rows(("g", [0.9, 0.5]), ("g", [0.3]), ("g", [0.6]), ("g", [0.1]))
    batch = replace(
        batch,
        settled=np.array([0.9, 0.5, 0.3, 0.6, 0.1]),
        tokens=np.array([[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 5, 4], [1, 2, 3, 4], [6, 2, 3, 4]]),
    )
    config = AdvantageConfig(credit="causal", think_weight=0.0)
    whole, _ = estimate(batch, config)
    found, _ = estimate(batch, replace(config, shared_prefix=True))
    assert found.reply.shape == (5, 4)
    np.testing.assert_allclose(
        found.reply[:, 0], whole.reply[:, 0] * [1, 0, 1, 1, 1]
    )  # turn 1 has no sibling
    np.testing.assert_allclose(found.reply[0], [0.9 - 1 / 3, 0.9 - 0.45, 0.9 - 0.45, 0.9 - 0.6])
    np.testing.assert_allclose(
        found.reply[2], [0.3 - 1.6 / 3, 0.3 - 0.75, 0.3 - 0.75, 0.0]
    )  # parted at token 2
    np.testing.assert_allclose(found.reply[3], [0.6 - 1.3 / 3, 0.6 - 0.6, 0.6 - 0.6, 0.6 - 0.9])
    np.testing.assert_allclose(found.reply[4], [0.1 - 0.6, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(found.answer, whole.answer)


def test_a_sibling_that_failed_is_nobodys_companion_in_a_prefix() -> None:
    batch = rows(("g", [0.9]), ("g", [0.3]), ("g", [0.6]), invalid=frozenset({(1, 0)}))
    batch = replace(batch, settled=np.array([0.9, 0.3, 0.6]), tokens=np.array([[1, 2], [1, 2], [3, 2]]))
    config = AdvantageConfig(credit="causal", think_weight=0.0, shared_prefix=True)
    found, _ = estimate(batch, config)
    np.testing.assert_allclose(found.reply, [[0.3, 0.0], [0.0, 0.0], [-0.3, 0.0]])


def test_causal_credit_needs_to_know_what_was_settled() -> None:
    with pytest.raises(ValueError, match="settled"):
        estimate(rows(("g", [0.0]), ("g", [1.0])), AdvantageConfig(credit="causal"))


def test_tokens_from_the_answer_on_have_the_answers_advantage() -> None:
    answer = np.array([[-1.0], [-2.0]])
    found = spread(Advantages(np.array([[1.0], [2.0]]), answer), np.array([2, 4]), length=4)
    assert found.tolist() == [[1, 1, -1, -1], [2, 2, 2, 2]]
    by_token = np.arange(8.0).reshape(2, 4)
    found = spread(Advantages(by_token, answer), np.array([2, 3]), length=4)
    assert found.tolist() == [[0, 1, -1, -1], [4, 5, 6, -2]]
