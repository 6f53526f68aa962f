"""How much better each turn was than what its siblings show could be expected.

A group is a set of episodes that share task, start state, first edit and editor seed. With
return-to-go G[i,t] = sum over t' >= t of gamma^(t'-t) * r[i,t'], the policy gradient theorem lets us
subtract any baseline b[i,t] that does not depend on what member i did from turn t on
(Williams 1992; Sutton & Barto 2018, section 13.4). Leaving the member itself out of its baseline keeps to
that (RLOO: Kool et al. 2019, Ahmadian et al. 2024); GRPO's group mean, which holds the member
itself, differs from it by the factor (n - 1) / n only when all members have the same number of turns.

Episodes may differ in length, since the thinker decides when to stop. Summing rewards that were
normalised per turn index over the members that got so far is then biased: a member that goes on pays
the later turns' baselines, one that stops does not, so the baseline of the earlier turn depends on the
very choice it should judge.
`tests/unit/learner/test_unbiased.py` shows both by enumeration.

Failures: an episode with any invalid turn leaves its group altogether, earlier turns too, because
its return is not known; its rows get advantage 0 and no sibling ever sees them. This is unbiased as
long as failing does not depend on the reply. A group with fewer than two valid episodes, or whose
members do not differ, teaches nothing: advantage 0, counted in the diagnostics.

Two things outside this file also shape the expected gradient: with gamma < 1 the usual omission of
the factor gamma^t (we omit it too), and a loss averaged over the batch's own token count, which
makes the step size, not the sign of any row, depend on the sampled lengths.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from thinkedit import plugins
from thinkedit.configs.schema import AdvantageConfig
from thinkedit.errors import UnknownName

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

EQUAL = 1e-9  # advantages this small are rounding: rewards are of order 1
SCALES = ("none", "group_std", "batch_std")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """One row per turn, in any order; N rows.

    group, episode: [N] identities of any sortable kind; an episode belongs to one group.
    turn: [N] 0-based; a valid episode has the turns 0 .. T-1.
    state: [N] `Turn.state_key`: equal exactly where siblings faced the same observation.
    reward: [N] the turn's own reward; anything (NaN) where invalid.
    valid: [N] whether the turn has a reward at all (`Outcome.valid`).
    improvement: [N] overall score after the turn minus that of the start state, over 10;
        only `outcome` reads it.
    settled: [N] the part of `reward` that think and score alone decided; credit "causal" needs it.
    tokens: [N, L] the reply's token ids, padded with anything; `shared_prefix` needs them.
    malformed: [N] whether the reply could not be read, so that it has no parts; None: all could.
    """

    group: npt.NDArray[Any]
    episode: npt.NDArray[Any]
    turn: Ints
    state: npt.NDArray[Any]
    reward: Floats
    valid: npt.NDArray[np.bool_]
    improvement: Floats | None = None
    settled: Floats | None = None
    tokens: Ints | None = None
    malformed: npt.NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.reward)

    def take(self, index: Ints) -> Rows:
        """The rows at `index`, in that order."""
        return Rows(
            group=self.group[index],
            episode=self.episode[index],
            turn=self.turn[index],
            state=self.state[index],
            reward=self.reward[index],
            valid=self.valid[index],
            improvement=None if self.improvement is None else self.improvement[index],
            settled=None if self.settled is None else self.settled[index],
            tokens=None if self.tokens is None else self.tokens[index],
            malformed=None if self.malformed is None else self.malformed[index],
        )


Estimator = Callable[[Rows, float], Floats]
"""An entry point of group thinkedit.advantages: `(rows, gamma) -> [N]`.

It gets valid episodes only, at least two of each group, sorted by group, episode and turn.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Advantages:
    """reply: [N, 1], or [N, L] token by token, for think and score; answer: [N, 1] for what comes after."""

    reply: Floats
    answer: Floats


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """Counts of one batch, for the metrics."""

    groups: int
    groups_too_few: int  # fewer than two valid episodes
    groups_no_variance: int  # nobody did better or worse
    episodes: int
    episodes_invalid: int
    same_state_share: float  # of the rows that count: those with a sibling in the very same state
    scale: float  # mean divisor applied; 1.0 without scaling

    def metrics(self) -> dict[str, float]:
        """Flat figures under `advantage/`."""
        return {f"advantage/{name}": float(value) for name, value in asdict(self).items()}


def estimate(rows: Rows, config: AdvantageConfig) -> tuple[Advantages, Diagnostics]:
    """Advantages of all rows under the configured estimator and scale.

    Scales, with rms the root mean square of raw advantages (their mean is near 0):

    - none: unbiased, and the default.
    - group_std: each group by its own rms, as GRPO does. Biased: groups that hardly differ weigh as
      much as those that differ a lot, so nearly solved and hopeless tasks gain weight
      (Liu et al. 2025, "Dr. GRPO").
    - batch_std: all rows by the batch's rms. One common factor: the direction's bias falls as one
      over the number of groups; the step no longer depends on the reward's unit.

    Credits: with "reply" all tokens of a row have one advantage. With "causal" the answer's tokens are
    not credited with what think and score had settled before them: how far that lies from the
    siblings' is subtracted. The answer can't change it, so it is a baseline like any other and moves
    no expectation (but for replies malformed after a good critique, which forfeit the critic's
    reward); it takes out noise that is as large as the signal.

    `think_weight`, with "causal": how much of the rest, which the answer brought, counts for the tokens of
    think and score. Below 1 it is no longer the reward's own gradient: think is paid less for the answers
    that it leads to, and the critic's signal stands out of the luck of the edits.

    `shared_prefix`, with "causal": a token of think and score is credited with the critic's terms only as
    against siblings that faced the same state and had written the same up to that token; where there is
    none, not at all. What all wrote alike cancels out, so what counts is the token at which they part,
    and not the many after it, to which the outcome is noise. The objective counts fewer places; at those the
    gradient is unbiased, since who shares a prefix does not depend on what follows it.

    `answer_weight` multiplies the answer's advantages. An answer is a tenth of a reply's tokens, so the
    noise of the long think before it moves the shared weights further than its own signal does; a weight
    evens that out. Each part's gradient keeps its direction, as with a learning rate for each.

    A malformed reply has no such parts: what it lost, it lost with any of its tokens, and where it would
    have ended well nobody knows. All of them get the turn's whole advantage, under every credit and weight.

    Returns:
        advantages in the order of `rows`, and the diagnostics.

    Raises:
        UnknownName: no such estimator or scale.
        ValueError: rows that contradict each other, or a reward that is not finite in a valid row.
    """
    if config.scale not in SCALES:
        raise UnknownName("grpo.advantage.scale", config.scale, SCALES)
    estimator: Estimator = plugins.load("advantages", config.estimator)

    episode = _codes(rows.episode)
    group = _codes(rows.group)
    _refuse_contradictions(rows, episode, group)
    episode_invalid = _sums(episode, ~rows.valid) > 0
    group_of = np.zeros(len(episode_invalid), np.int64)
    group_of[episode] = group
    survivors = _sums(group_of, ~episode_invalid) if len(group_of) else np.zeros(0)

    counts = ~episode_invalid[episode] & (survivors[group] >= 2)
    order = np.lexsort((rows.turn, episode, group))
    order = order[counts[order]]
    kept = rows.take(order)
    if not np.isfinite(kept.reward).all():
        raise ValueError("a valid row has a reward that is not finite")

    raw = estimator(kept, config.gamma) if len(kept) else np.zeros(0)
    if raw.shape != (len(kept),) or not np.isfinite(raw).all():
        raise ValueError(f"estimator {config.estimator!r} must give one finite advantage per row")
    raw = np.where(np.abs(raw) < EQUAL, 0.0, raw)
    divisor = _divisor(raw, _codes(kept.group), config.scale)
    of_turn = np.zeros(len(rows))
    of_turn[order] = raw / divisor
    of_answer, of_reply = of_turn, of_turn[:, None]
    if config.credit == "causal":
        settled = np.zeros(len(rows))
        settled[order] = _settled(kept) / divisor
        of_answer = of_turn - settled
        of_critic = settled[:, None]
        if config.shared_prefix:
            by_token = _settled_by_token(kept) / divisor[:, None]
            of_critic = np.zeros((len(rows), by_token.shape[1]))
            of_critic[order] = by_token
        of_reply = of_critic + config.think_weight * of_answer[:, None]
    whole = np.zeros((len(rows), 1), np.bool_) if rows.malformed is None else rows.malformed[:, None]
    advantages = Advantages(
        reply=np.where(whole, of_turn[:, None], of_reply),
        answer=np.where(whole, of_turn[:, None], config.answer_weight * of_answer[:, None]),
    )

    taught = _sums(group[order], raw != 0.0, size=len(survivors)) > 0
    return advantages, Diagnostics(
        groups=len(survivors),
        groups_too_few=int((survivors < 2).sum()),
        groups_no_variance=int(((survivors >= 2) & ~taught).sum()),
        episodes=len(episode_invalid),
        episodes_invalid=int(episode_invalid.sum()),
        same_state_share=float((_companions(kept) > 0).mean()) if len(kept) else 0.0,
        scale=float(divisor.mean()) if len(kept) else 1.0,
    )


def spread(advantages: Advantages, answer_from: Ints, length: int) -> Floats:
    """[N, length]: the advantages token by token; each row's answer begins at token `answer_from`."""
    in_answer = np.arange(length) >= answer_from[:, None]
    return np.where(in_answer, advantages.answer, advantages.reply)


def turn(rows: Rows, gamma: float) -> Floats:
    """Return-to-go against what others had to go from the nearest comparable place. Unbiased.

    The baseline of member i at turn t is the mean of G[j,t] over the others j != i that are nearest:

    1. siblings in the same state at turn t (always there at turn 0);
    2. else siblings that reached turn t at all;
    3. else 0.

    Who these others are and what they earned depends on them and on the state that i is in, never on
    what i chooses there, so each term of the gradient keeps its expectation. Only baselines of turn t
    itself are subtracted: an earlier turn is credited with the plain return, so going on is worth
    exactly what it earns.
    """
    to_go = _return_to_go(rows, _codes(rows.episode), gamma)
    baseline = np.zeros(len(rows))
    by_group_turn = np.stack([_codes(rows.group), rows.turn], axis=1)
    for place in (_codes(by_group_turn), _alike(rows)):  # from far to near
        others = _sums(place, np.ones(len(rows)))[place] - 1
        mean = (_sums(place, to_go)[place] - to_go) / np.maximum(others, 1)
        baseline = np.where(others > 0, mean, baseline)
    return to_go - baseline


def episode(rows: Rows, gamma: float) -> Floats:
    """The whole return against the siblings' mean, the same for every turn. Unbiased.

    A turn is also credited with what was earned before it, which is noise of mean zero, but its
    baseline always has all siblings.
    """
    codes = _codes(rows.episode)
    returns = _sums(codes, rows.reward * gamma ** rows.turn.astype(np.float64))
    return _against_siblings(rows, codes, returns)


def outcome(rows: Rows, gamma: float) -> Floats:
    """Only what the user keeps: the final picture's improvement over the start state's.

    Unbiased for that objective, which is another one than the summed reward: format and honest
    self-scores earn nothing. `gamma` discounts by the number of turns it took.

    Raises:
        ValueError: the rows carry no improvement, or one that is not finite.
    """
    if rows.improvement is None:
        raise ValueError("advantage 'outcome' needs the rows' improvement")
    codes = _codes(rows.episode)
    last = np.flatnonzero(np.append(codes[1:] != codes[:-1], True))
    final = rows.improvement[last] * gamma ** rows.turn[last].astype(np.float64)
    return _against_siblings(rows, codes, final)


def _settled(rows: Rows) -> Floats:
    """How far each row's settled reward lies from that of comparable siblings, as in `turn`."""
    if rows.settled is None:
        raise ValueError("credit 'causal' needs the rows' settled rewards")
    return turn(replace(rows, reward=rows.settled), gamma=0.0)


def _settled_by_token(rows: Rows) -> Floats:
    """[N, L]: the settled reward against the siblings that had written the same before the token; else 0."""
    if rows.settled is None or rows.tokens is None:
        raise ValueError("shared_prefix needs the rows' settled rewards and tokens")
    found = np.zeros(rows.tokens.shape)
    alike = _alike(rows)
    for place in np.unique(alike):
        members = np.flatnonzero(alike == place)
        written = rows.tokens[members]
        same = (written[:, None] == written[None]).cumprod(axis=2)  # [i, j, t]: up to and with token t
        together = np.concatenate([np.ones_like(same[..., :1]), same[..., :-1]], axis=2)
        together[np.arange(len(members)), np.arange(len(members))] = 0
        others = together.sum(axis=1)
        baseline = np.einsum("ijt,j->it", together, rows.settled[members]) / np.maximum(others, 1)
        found[members] = np.where(others > 0, rows.settled[members, None] - baseline, 0.0)
    return found


def _against_siblings(rows: Rows, codes: Ints, score: Floats) -> Floats:
    """score [episodes] minus the mean of its siblings, spread over the rows."""
    first = np.flatnonzero(np.append(True, codes[1:] != codes[:-1]))
    group = _codes(rows.group[first])
    others = _sums(group, np.ones(len(score)))[group] - 1
    return (score - (_sums(group, score)[group] - score) / others)[codes]


def _return_to_go(rows: Rows, codes: Ints, gamma: float) -> Floats:
    """[N]; the rows are sorted by episode and turn."""
    to_go: Floats = rows.reward.astype(np.float64)
    for i in range(len(rows) - 2, -1, -1):
        if codes[i] == codes[i + 1]:
            to_go[i] += gamma * to_go[i + 1]
    return to_go


def _divisor(raw: Floats, group: Ints, scale: str) -> Floats:
    """[N], positive."""
    if scale == "none" or not len(raw):
        return np.ones(len(raw))
    if scale == "batch_std":
        rms = np.full(len(raw), np.sqrt(np.mean(raw**2)))
    else:
        rms = np.sqrt(_sums(group, raw**2) / _sums(group, np.ones(len(raw))))[group]
    return np.where(rms > 0, rms, 1.0)


def _alike(rows: Rows) -> Ints:
    """[N] equal where siblings faced the same state at the same turn."""
    return _codes(np.stack([_codes(rows.group), rows.turn, _codes(rows.state)], axis=1))


def _companions(rows: Rows) -> Floats:
    alike = _alike(rows)
    return _sums(alike, np.ones(len(rows)))[alike] - 1


def _codes(values: npt.NDArray[Any]) -> Ints:
    """Each value (or row of values) as its rank among the distinct ones."""
    if not len(values):
        return np.zeros(0, np.int64)
    codes = np.unique(values, axis=0 if values.ndim > 1 else None, return_inverse=True)[1]
    return codes.reshape(-1).astype(np.int64)


def _sums(codes: Ints, values: npt.NDArray[Any], size: int = 0) -> Floats:
    """Sum of the values of each code."""
    return np.bincount(codes, weights=values.astype(np.float64), minlength=size).astype(np.float64)


def _refuse_contradictions(rows: Rows, episode: Ints, group: Ints) -> None:
    lengths = {name: len(getattr(rows, name)) for name in ("group", "episode", "turn", "state", "valid")}
    if set(lengths.values()) != {len(rows)}:
        raise ValueError(f"columns differ in length: reward {len(rows)}, {lengths}")
    pairs = np.unique(np.stack([episode, group], axis=1), axis=0) if len(rows) else np.zeros((0, 2))
    if len(pairs) != len(np.unique(episode)):
        raise ValueError("an episode belongs to two groups")
    order = np.lexsort((rows.turn, episode))
    sorted_turns, sorted_episodes = rows.turn[order], episode[order]
    starts = np.append(True, sorted_episodes[1:] != sorted_episodes[:-1]) if len(rows) else np.zeros(0, bool)
    expected = np.arange(len(rows)) - np.flatnonzero(starts)[sorted_episodes] if len(rows) else sorted_turns
    if not np.array_equal(sorted_turns, expected):
        raise ValueError("the turns of an episode must be 0, 1, 2 ..., each once")
