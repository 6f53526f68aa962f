"""The expected gradient of each estimator, computed exactly on a tiny MDP.

The thinker may stop after any of three turns, so episodes differ in length. Every episode and every
group of episodes is enumerated with its probability: no sampling, no tolerance for luck.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from estimates import of_reply

from thinkedit.configs.schema import AdvantageConfig
from thinkedit.learner.advantages import Floats, Rows, estimate

# state -> action -> list of (probability, reward, next state); None ends the episode.
Arrow = tuple[float, float, str | None]
MDP: dict[str, list[list[Arrow]]] = {
    "start": [
        [(1.0, 0.6, None)],
        [(1.0, 0.1, "left")],
        [(0.7, -0.3, "right"), (0.3, 0.2, "left")],
    ],
    "left": [[(1.0, 0.1, None)], [(1.0, -0.4, "last")]],
    "right": [[(1.0, 0.0, None)], [(0.5, 0.9, "last"), (0.5, -0.2, None)]],
    "last": [[(1.0, 0.8, None)], [(1.0, -0.5, None)]],
}
LOGITS = {"start": [0.3, -0.2, 0.5], "left": [0.4, -0.6], "right": [-0.1, 0.7], "last": [0.2, 0.0]}
SLOT = {pair: k for k, pair in enumerate((s, a) for s, actions in MDP.items() for a in range(len(actions)))}
POLICY = {state: np.exp(z) / np.sum(np.exp(z)) for state, z in LOGITS.items()}


@dataclass(frozen=True)
class Path:
    probability: float
    steps: tuple[tuple[str, int, float], ...]  # state, action, reward

    @property
    def total(self) -> float:
        return sum(reward for _, _, reward in self.steps)


def paths(state: str | None = "start") -> list[Path]:
    if state is None:
        return [Path(1.0, ())]
    return [
        Path(POLICY[state][action] * p * rest.probability, ((state, action, reward), *rest.steps))
        for action, arrows in enumerate(MDP[state])
        for p, reward, following in arrows
        for rest in paths(following)
    ]


def grad_log(state: str, action: int) -> Floats:
    """Gradient of log softmax at (state, action) for all logits."""
    gradient = np.zeros(len(SLOT))
    for other in range(len(MDP[state])):
        gradient[SLOT[state, other]] = float(other == action) - POLICY[state][other]
    return gradient


PATHS = paths()
TRUE = sum(
    (path.probability * path.total * sum(grad_log(s, a) for s, a, _ in path.steps) for path in PATHS),
    np.zeros(len(SLOT)),
)


@dataclass(frozen=True)
class Enumeration:
    """Every group that can happen, as one batch; `weight` and `score` are per row."""

    rows: Rows
    weight: Floats  # probability of the row's group, over the group's size
    score: Floats  # [N, parameters] gradient of log pi


def enumerate_groups(size: int, fails: float = 0.0) -> Enumeration:
    patterns = [(False,) * size] if not fails else list(itertools.product([False, True], repeat=size))
    flat, weights = [], []
    for group, (members, failed) in enumerate(
        itertools.product(itertools.product(PATHS, repeat=size), patterns)
    ):
        p = np.prod([path.probability for path in members])
        p *= np.prod([fails if f else 1.0 - fails for f in failed])
        for i, path in enumerate(members):
            for t, (state, action, reward) in enumerate(path.steps):
                flat.append((group, group * size + i, t, state, action, reward, not failed[i], path.total))
                weights.append(p / size)
    group_, episode, turn, state, action, reward, valid, improvement = map(np.array, zip(*flat, strict=True))
    rows = Rows(
        group=group_,
        episode=episode,
        turn=turn,
        state=state,
        reward=reward,
        valid=valid,
        improvement=improvement,
    )
    score = np.stack([grad_log(s, a) for s, a in zip(state, action, strict=True)])
    return Enumeration(rows, np.array(weights), score)


def expected_gradient(advantage: Callable[[Rows], Floats], size: int, fails: float = 0.0) -> Floats:
    """Mean over all groups of `size` members of sum_i sum_t A[i,t] grad log pi, exactly."""
    every = enumerate_groups(size, fails)
    return (advantage(every.rows) * every.weight) @ every.score


def ours(estimator: str, scale: str = "none") -> Callable[[Rows], Floats]:
    config = AdvantageConfig(estimator=estimator, scale=scale)
    return lambda rows: of_reply(rows, config)[0]


def naive(rows: Rows) -> Floats:
    """Rewards centred per turn index over the members that got so far, then summed to the end."""
    advantages = np.zeros(len(rows))
    for group in np.unique(rows.group):
        mine = np.flatnonzero(rows.group == group)
        turn, episode, centred = rows.turn[mine], rows.episode[mine], rows.reward[mine].copy()
        for t in np.unique(turn):
            centred[turn == t] -= rows.reward[mine][turn == t].mean()
        later = (episode[:, None] == episode) & (turn[:, None] <= turn)
        advantages[mine] = later @ centred
    return advantages


def cosine(a: Floats, b: Floats) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_enumeration_is_complete() -> None:
    assert sum(path.probability for path in PATHS) == pytest.approx(1.0)
    assert {len(path.steps) for path in PATHS} == {1, 2, 3}


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("estimator", ["turn", "episode", "outcome"])
def test_expected_gradient_is_the_policy_gradient(estimator: str, size: int) -> None:
    gradient = expected_gradient(ours(estimator), size)
    np.testing.assert_allclose(gradient, TRUE, atol=1e-8)
    assert cosine(gradient, TRUE) == pytest.approx(1.0, abs=1e-12)


def test_failures_that_do_not_depend_on_the_reply_change_the_scale_only() -> None:
    gradient = expected_gradient(ours("turn"), 2, fails=0.25)
    np.testing.assert_allclose(gradient, TRUE * 0.75**2, atol=1e-8)


def test_normalising_per_turn_index_is_biased() -> None:
    gradient = expected_gradient(naive, 3)
    assert cosine(gradient, TRUE) < 0.95


def test_group_std_is_biased_and_says_so() -> None:
    assert cosine(expected_gradient(ours("turn", "group_std"), 2), TRUE) < 0.99


# One turn of two choices: a critique, whose reward is settled at once, then an answer.
CRITIC_REWARD = np.array([0.0, 0.9])
EDIT_REWARD = np.array([[0.1, 0.5, 0.0], [0.3, 0.2, 0.7]])  # critique, answer
CRITIQUE_POLICY = np.array([0.4, 0.6])
ANSWER_POLICY = np.array([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]])


def test_causal_credit_keeps_the_gradient_and_takes_out_noise() -> None:
    choices = list(itertools.product(range(2), range(3)))
    groups = list(itertools.product(choices, repeat=2))
    chance = np.array([np.prod([CRITIQUE_POLICY[c] * ANSWER_POLICY[c, a] for c, a in g]) for g in groups])
    critique, answer = np.array([member for group in groups for member in group]).T
    settled = CRITIC_REWARD[critique]
    rows = Rows(
        group=np.repeat(np.arange(len(groups)), 2),
        episode=np.arange(2 * len(groups)),
        turn=np.zeros(2 * len(groups), int),
        state=np.full(2 * len(groups), "s"),
        reward=settled + EDIT_REWARD[critique, answer],
        valid=np.full(2 * len(groups), True),
        settled=settled,
    )
    weight = np.repeat(chance, 2) / 2
    score = np.zeros((2 * len(groups), 2, 3))  # gradient of log pi(answer | critique)
    for k, (c, a) in enumerate(zip(critique, answer, strict=True)):
        score[k, c] = (np.arange(3) == a) - ANSWER_POLICY[c]
    value = EDIT_REWARD - (ANSWER_POLICY * EDIT_REWARD).sum(axis=1, keepdims=True)
    true = CRITIQUE_POLICY[:, None] * ANSWER_POLICY * value

    found, _ = estimate(rows, AdvantageConfig(credit="causal"))
    for advantage in (found.reply[:, 0], found.answer[:, 0]):
        np.testing.assert_allclose(np.einsum("n,n,nca->ca", weight, advantage, score), true, atol=1e-12)

    def noise(advantage: Floats) -> float:
        second_moment = np.einsum("n,n,nca->ca", weight, advantage**2, score**2)
        return float((second_moment - true**2).sum())

    assert noise(found.answer[:, 0]) < 0.5 * noise(found.reply[:, 0])


# A critique of two tokens: its reward hangs on both, and the second's policy on the first.
FIRST = np.array([0.7, 0.3])
SECOND = np.array([[0.8, 0.2], [0.4, 0.6]])
TWO_TOKEN_REWARD = np.array([[0.9, 0.2], [0.1, 0.5]])


@pytest.mark.parametrize("size", [2, 3])
def test_credit_by_shared_prefix_is_unbiased_at_every_place_that_it_counts(size: int) -> None:
    choices = list(itertools.product(range(2), range(2)))
    groups = list(itertools.product(choices, repeat=size))
    chance = np.array([np.prod([FIRST[a] * SECOND[a, b] for a, b in g]) for g in groups])
    tokens = np.array([member for group in groups for member in group])
    settled = TWO_TOKEN_REWARD[tokens[:, 0], tokens[:, 1]]
    count = len(tokens)
    rows = Rows(
        group=np.repeat(np.arange(len(groups)), size),
        episode=np.arange(count),
        turn=np.zeros(count, int),
        state=np.full(count, "s"),
        reward=settled,
        valid=np.full(count, True),
        settled=settled,
        tokens=tokens,
    )
    config = AdvantageConfig(credit="causal", think_weight=0.0, shared_prefix=True)
    advantage = estimate(rows, config)[0].reply
    weight = np.repeat(chance, size) / size

    value = (SECOND * TWO_TOKEN_REWARD).sum(axis=1)
    first = np.eye(2)[tokens[:, 0]] - FIRST
    true = FIRST * (value - FIRST @ value)
    np.testing.assert_allclose(np.einsum("n,n,na->a", weight, advantage[:, 0], first), true, atol=1e-12)

    for prefix in range(2):
        there = tokens[:, 0] == prefix
        second = np.eye(2)[tokens[there, 1]] - SECOND[prefix]
        true = FIRST[prefix] * SECOND[prefix] * (TWO_TOKEN_REWARD[prefix] - value[prefix])
        counted = 1 - (1 - FIRST[prefix]) ** (size - 1)  # how often a sibling wrote the same first token
        found = np.einsum("n,n,na->a", weight[there], advantage[there, 1], second)
        np.testing.assert_allclose(found, counted * true, atol=1e-12)
