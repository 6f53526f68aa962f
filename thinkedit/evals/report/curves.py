"""What changed over training, step by step: from the stored episodes and from verl's metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup

from thinkedit.actors.store import TrajectoryStore
from thinkedit.evals.report.svg import Series, line_chart, number
from thinkedit.evals.run import RunFolder
from thinkedit.evals.summary import GAP, TARGETS

# Colours of reward terms, in order of appearance.
_TERM_CSS = ("c-grpo", "c-sft", "c-naive", "c-aware", "c-base", "c-single")


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart with its caption: the last value is said in words."""

    title: str
    note: str
    svg: Markup
    last: str = ""
    legend: tuple[tuple[str, str], ...] = ()  # (name, css)


def learning_figures(run: RunFolder) -> list[Figure]:
    """Reward, score, format, critic (from the episodes); KL, gap, entropy, length (from the metrics)."""
    figures = _episode_figures(TrajectoryStore(run.trajectories))
    steps = run.steps("grpo")
    for row in steps:
        if row.get("advantage/groups"):
            idle = row["advantage/groups_too_few"] + row["advantage/groups_no_variance"]
            row["groups that teach"] = 1 - idle / row["advantage/groups"]
    figures += [
        figure
        for figure in (
            _metric(
                steps,
                "Groups that teach",
                ("groups that teach",),
                note="share with unequal valid siblings",
                low=0.0,
                high=1.0,
            ),
            _metric(
                steps,
                "Held-out O",
                ("val/episode/overall_end/mean",),
                note="of the last edits, always the same tasks, 0–10",
                low=0.0,
                high=10.0,
                smooth=False,
            ),
            _metric(steps, "KL to the SFT model", ("actor/kl_loss", "actor/reward_kl_penalty"), low=0.0),
            _metric(
                steps,
                "Rollout/trainer gap",
                (GAP,),
                log=True,
                limit=TARGETS["gap"],
                limit_label="alarm at 1e-3",
                note="largest difference of a token's probability",
                smooth=False,
            ),
            _metric(
                steps,
                "Entropy",
                ("policy/entropy/mean", "actor/entropy", "actor/entropy_loss"),
                note="nats per token",
                low=0.0,
            ),
            _metric(
                steps, "Rehearsal", ("actor/rehearsal_loss",), note="nats per demonstrated token", low=0.0
            ),
            _metric(steps, "Gradient norm", ("actor/grad_norm",), low=0.0),
            _metric(
                steps, "Reply length", ("reply/tokens/mean", "response_length/mean"), note="tokens", low=0.0
            ),
        )
        if figure is not None
    ]
    sft = _metric(run.steps("sft"), "SFT loss", ("train/loss", "loss"), note="nats per token", low=0.0)
    return ([sft] if sft else []) + figures


def term_figures(run: RunFolder) -> list[Figure]:
    """What each reward term gave on average, as it counts in the total."""
    store = TrajectoryStore(run.trajectories)
    if not store.shards():
        return []
    frame = store.frame()
    graded = frame[frame["total"].notna() & frame["well_formed"]]
    if graded.empty or graded["step"].nunique() < 2:
        return []
    terms = [name for name in graded.columns if name.startswith("term/")]
    weighted = [t for t in terms if (graded[t.replace("term/", "weight/")] != 0).any()]
    figures: list[Figure] = []
    for term in weighted:
        weight = graded[term.replace("term/", "weight/")].iloc[-1]
        means = graded.groupby("step")[term].mean()
        series = Series(term, list(means.index), list(means), _TERM_CSS[len(figures) % len(_TERM_CSS)])
        flat = means.min() == means.max() and 0 <= means.min() <= 1
        low, high = (0.0, 1.0) if flat else (None, None)
        figures.append(
            Figure(
                title=term.removeprefix("term/"),
                note=f"weight {weight:g}, raw mean of well-formed turns",
                svg=line_chart([series], low=low, high=high, smooth=True),
                last=number(means.iloc[-1], 3),
            )
        )
    return figures


def _episode_figures(store: TrajectoryStore) -> list[Figure]:
    if not store.shards():
        return []
    turns, episodes = store.frame(), store.frame("episode")
    if turns["step"].nunique() < 2:
        return []
    figures = []
    by_step = turns.groupby("step")
    reward = by_step["total"].mean()
    figures.append(_figure("Reward", "mean total of graded turns", reward, "c-grpo"))
    graded = episodes[episodes["final_semantic"].notna() & episodes["first_semantic"].notna()]
    overall = {
        moment: _overall(graded, moment).groupby(graded["step"]).mean() for moment in ("first", "final")
    }
    both = [
        Series("first edit", list(overall["first"].index), list(overall["first"]), "c-single"),
        Series("final edit", list(overall["final"].index), list(overall["final"]), "c-grpo"),
    ]
    figures.append(
        Figure(
            title="Overall score O",
            note="of sampled training episodes, 0–10",
            svg=line_chart(both, low=0, high=10, smooth=True),
            last=number(overall["final"].iloc[-1]),
            legend=(("first edit", "c-single"), ("final edit", "c-grpo")),
        )
    )
    valid = turns["well_formed"].groupby(turns["step"]).mean()
    figures.append(_figure("Well-formed replies", "share of turns", valid, "c-sft", high=1.0))
    scored = turns[turns["well_formed"]]
    error = (
        (scored["predicted_semantic"] - scored["before_semantic"]).abs()
        + (scored["predicted_quality"] - scored["before_quality"]).abs()
    ) / 2
    figures.append(
        _figure(
            "Critic error",
            "mean |predicted − judged|, 0–10",
            error.groupby(scored["step"]).mean(),
            "c-naive",
            low=0,
        )
    )
    kept = turns["kept"].groupby(turns["step"]).mean()
    figures.append(_figure("Edits kept", "share of turns that kept the edit", kept, "c-aware", low=0))
    return figures


def _overall(frame: pd.DataFrame, moment: str) -> pd.Series:
    return (frame[f"{moment}_semantic"] * frame[f"{moment}_quality"]).pow(0.5)


def _figure(title: str, note: str, values: Any, css: str, **axis: Any) -> Figure:
    series = Series(title.lower(), list(values.index), [float(v) for v in values], css)
    return Figure(title, note, line_chart([series], smooth=True, **axis), number(float(values.iloc[-1]), 3))


def _metric(
    steps: Sequence[dict[str, Any]], title: str, keys: tuple[str, ...], *, note: str = "", **axis: Any
) -> Figure | None:
    """A chart of the first of `keys` that was recorded; None where none was."""
    for key in keys:
        points = [(row["step"], row[key]) for row in steps if isinstance(row.get(key), int | float)]
        points = [(x, y) for x, y in points if math.isfinite(y)]
        if points:
            series = Series(key, [x for x, _ in points], [y for _, y in points], "c-accent")
            svg = line_chart([series], **({"smooth": True} | axis))
            return Figure(title, note or key, svg, number(float(points[-1][1]), 3))
    return None
