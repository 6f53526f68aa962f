"""Which of the kept trajectories are taken, and for what: duplicates, balance, split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from thinkedit.configs.schema import DataConfig
from thinkedit.data.index import Index
from thinkedit.data.rules import balance, duplicates, split
from thinkedit.data.rules.balance import Cell
from thinkedit.data.rules.fates import Fate


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What was decided. Tables hold trajectories by task type and score level.

    kept: after the filter. distinct: of them without duplicates. target: what balance was to leave.
    theta: the variance from which on a trajectory is a candidate for RL. candidates: how many were taken
        as such; of those at theta the seed may have left some out.
    """

    kept: dict[Cell, int]
    distinct: dict[Cell, int]
    balanced: dict[Cell, int]
    rl: dict[Cell, int]
    sft: dict[Cell, int]
    target: int
    theta: float
    candidates: int
    rl_quota: int
    sft_quota: int


def select(index: Index, config: DataConfig, seed: int) -> Selection:
    """Decide about every undecided row of the index."""
    kept = index.cells()
    index.decide((row, Fate.DUPLICATE) for row in duplicates.duplicates(index.rows(duplicates.ORDER)))

    distinct = index.cells()
    whole = sum(distinct.values())
    target = config.target_trajectories or round(config.balance_share * whole)
    _cut(index, distinct, target, seed, order=balance.ORDER, over=Fate.UNBALANCED)

    balanced = index.cells()
    rl_quota = config.rl_trajectories
    if rl_quota is None:
        rl_quota = round(config.rl_share * sum(balanced.values()))
    pool, theta = None, config.rl_min_variance
    if theta is None:
        pool = round(config.rl_pool * rl_quota)
        theta = split.threshold(index.rows(split.BY_VARIANCE), pool)
    varied = split.candidates(index.rows(split.BY_VARIANCE), theta, pool)
    candidates = Counter(row.cell for row in varied)
    # The candidates of a cell are the first of its rows in RL_ORDER, so a cap on the cell takes only them.
    allowed = balance.caps(candidates, rl_quota, seed)
    index.decide((row, Fate.RL) for row, fits in balance.filled(index.rows(split.RL_ORDER), allowed) if fits)

    together = index.rows(split.BY_SOURCE, beside=Fate.RL)
    index.decide((row, Fate.SOURCE_IN_RL) for row in split.sharing_a_source(together))
    refusals = ((row, split.sft_refusal(row, theta=theta, good_at=config.good_at)) for row in index.rows("n"))
    index.decide((row, fate) for row, fate in refusals if fate is not None)
    stable = index.cells()
    sft_quota = sum(stable.values()) if config.sft_trajectories is None else config.sft_trajectories
    _cut(
        index,
        stable,
        sft_quota,
        seed,
        order=split.SFT_ORDER,
        over=Fate.OVER_QUOTA,
        values={"good_at": config.good_at},
    )
    index.decide((row, Fate.SFT) for row in index.rows("n"))
    return Selection(
        kept=kept,
        distinct=distinct,
        balanced=balanced,
        rl=index.cells(fate=Fate.RL),
        sft=index.cells(fate=Fate.SFT),
        target=target,
        theta=theta,
        candidates=sum(candidates.values()),
        rl_quota=rl_quota,
        sft_quota=sft_quota,
    )


def _cut(
    index: Index,
    counts: dict[Cell, int],
    size: int,
    seed: int,
    *,
    order: str,
    over: Fate,
    values: Mapping[str, float] | None = None,
) -> None:
    """Leave `size` rows, cells cut to one height; `over` is the fate of the others."""
    allowed = balance.caps(counts, size, seed)
    rows = balance.filled(index.rows(order, values=values), allowed)
    index.decide((row, over) for row, fits in rows if not fits)
