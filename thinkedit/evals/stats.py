"""Means with bootstrap intervals, paired differences and the critic's error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import bootstrap

from thinkedit.types import Scores

Floats = Sequence[float] | npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean of `n` values with a 95 % interval; `low` and `high` are NaN below two values."""

    mean: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, float | int]:
        return asdict(self)


def mean_interval(values: Floats, *, resamples: int = 2000, seed: int = 0) -> Interval:
    """Mean with a percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13).

    Deterministic: equal values, `resamples` and `seed` give equal intervals.

    Raises:
        ValueError: no values, or one that is not finite.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.size == 0:
        raise ValueError("a mean needs at least one value")
    if not np.isfinite(sample).all():
        raise ValueError("a mean over NaN or infinity says nothing; leave failed items out and count them")
    mean = float(sample.mean())
    if sample.size == 1:
        return Interval(mean, math.nan, math.nan, 1)
    interval = bootstrap(
        (sample,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, 2_000_000 // sample.size),  # bounds memory to about 16 MB
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    # Rounding may put an end on the wrong side of the mean when all values are equal.
    low, high = min(float(interval.low), mean), max(float(interval.high), mean)
    return Interval(mean, low, high, int(sample.size))


def strata_interval(
    strata: Sequence[Sequence[tuple[float, float]]], *, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Mean over strata of (sum of values / number of values), with a 95 % percentile interval.

    Items are resampled within their stratum, whole, so that marks of one item stay together. One
    stratum of items with one value each is `mean_interval`'s mean.

    Args:
        strata: of each a list of items, as (sum of its values, their number).

    Returns:
        `n` is the number of items. `low` and `high` are NaN when no stratum has two.

    Raises:
        ValueError: no strata, an empty one, or a value that is not finite.
    """
    if not strata or not all(strata):
        raise ValueError("a mean over strata needs at least one item in each")
    arrays = [np.asarray(stratum, dtype=np.float64) for stratum in strata]
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError("a mean over NaN or infinity says nothing; leave failed items out and count them")
    mean = float(np.mean([array[:, 0].sum() / array[:, 1].sum() for array in arrays]))
    n = sum(len(array) for array in arrays)
    if all(len(array) == 1 for array in arrays):
        return Interval(mean, math.nan, math.nan, n)
    rng = np.random.default_rng(seed)
    drawn = np.zeros(resamples)
    for array in arrays:
        batch = max(1, 2_000_000 // len(array))  # bounds memory to about 48 MB
        for start in range(0, resamples, batch):
            picks = rng.integers(0, len(array), (min(batch, resamples - start), len(array)))
            sums = array[picks].sum(axis=1)
            drawn[start : start + batch] += sums[:, 0] / sums[:, 1]
    low, high = np.percentile(drawn / len(arrays), [2.5, 97.5])
    return Interval(mean, min(float(low), mean), max(float(high), mean), n)


def paired_difference(
    before: Mapping[str, float], after: Mapping[str, float], *, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Mean of `after - before` over the keys that both have, with a 95 % interval.

    Raises:
        ValueError: no key in common.
    """
    shared = sorted(before.keys() & after.keys())
    return mean_interval([after[key] - before[key] for key in shared], resamples=resamples, seed=seed)


@dataclass(frozen=True, slots=True)
class CriticError:
    """Mean absolute error of predicted scores, per axis and over both, on a 0-10 scale.

    constant_*: that of the best constant guess for the same judged scores (their median,
    which minimises absolute error), so the hardest guess to beat that sees no picture.
    """

    semantic: float
    quality: float
    constant_semantic: float
    constant_quality: float
    n: int

    @property
    def overall(self) -> float:
        return (self.semantic + self.quality) / 2

    @property
    def constant(self) -> float:
        return (self.constant_semantic + self.constant_quality) / 2

    def as_dict(self) -> dict[str, float | int]:
        return {**asdict(self), "overall": self.overall, "constant": self.constant}


def critic_error(predicted: Sequence[Scores], judged: Sequence[Scores]) -> CriticError | None:
    """Error of predictions against the judge's scores of the same images; None without any.

    Raises:
        ValueError: the two differ in length.
    """
    if len(predicted) != len(judged):
        raise ValueError(f"{len(predicted)} predictions for {len(judged)} verdicts")
    if not predicted:
        return None
    guess = np.array([(s.semantic, s.quality) for s in predicted])
    truth = np.array([(s.semantic, s.quality) for s in judged])
    semantic, quality = np.abs(guess - truth).mean(axis=0).tolist()
    constant_semantic, constant_quality = np.abs(truth - np.median(truth, axis=0)).mean(axis=0).tolist()
    return CriticError(semantic, quality, constant_semantic, constant_quality, n=len(truth))
