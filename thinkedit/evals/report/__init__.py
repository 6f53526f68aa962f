"""report.html: a run on one page that needs no network, no server and no other file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from thinkedit.actors.store import TrajectoryStore
from thinkedit.configs.load import RESOLVED
from thinkedit.evals.report.curves import Figure, learning_figures, term_figures
from thinkedit.evals.report.gallery import TRAINING, Card, arms_present, card, choose, kinds_present
from thinkedit.evals.report.svg import Series, interval_bar, line_chart, number
from thinkedit.evals.run import RunFolder, label
from thinkedit.rewards.limits.ledger import headline
from thinkedit.types import Episode

ARM_CSS = {
    "single_edit": "c-single",
    "base": "c-base",
    "naive_expert": "c-naive",
    "sft": "c-sft",
    "grpo": "c-grpo",
    "aware_expert": "c-aware",
}
_SCRIPTED = ("single_edit", "naive_expert", "aware_expert")
_CHECKS = {
    "sft_above_single_edit": "SFT gains on a single edit",
    "sft_and_single_edit_intervals_apart": "SFT and single edit: intervals apart by",
    "grpo_above_sft": "GRPO gains on SFT",
    "grpo_and_sft_intervals_apart": "GRPO and SFT: intervals apart by",
    "sft_format_validity": "Well-formed replies after SFT",
    "grpo_format_validity": "Well-formed replies after GRPO",
    "critic_error_after_grpo_minus_sft": "Change of the critic's error by GRPO",
    "critic_error_minus_constant": "Critic's error against the best constant's",
    "reading_fidelity_grpo_over_sft": "Reading fidelity, GRPO over SFT",
    "made_up_rewards": "Rewards nobody gave",
    "rescored_difference": "Totals scored again, largest difference",
    "probability_gap": "Largest rollout/trainer gap",
}


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a bar: `percent` of the whole."""

    name: str
    value: float
    percent: float


def build_report(run: RunFolder, summary: Mapping[str, Any]) -> Path:
    """Write report.html from a summary (see `thinkedit.evals.summary`) and the run's stores.

    Raises:
        DataError: no run folder, or a store that cannot be read.
    """
    config = run.config()
    accept_at = config.episode.accept_at
    played = {name: list(store.read()) for name, store in run.arms().items()}
    cards = _cards(run, played, accept_at)
    context = {
        "summary": summary,
        "arms": list(summary["arms"].items()),
        "css": ARM_CSS,
        "hero": _hero(summary),
        "checks": [
            (_CHECKS.get(name, name.replace("_", " ")), check) for name, check in summary["checks"].items()
        ],
        "by_turn": _by_turn(summary),
        "task_types": _task_types(summary),
        "learning": learning_figures(run),
        "terms": term_figures(run),
        "cards": cards,
        "kinds": kinds_present(cards),
        "card_arms": arms_present(cards),
        "phases": shares(summary["seconds"]),
        "step_phases": shares(_leaf_phases(summary["training"]["seconds"])),
        "outcomes": _outcome_table(summary),
        "spending": summary["spending"],
        "config_text": (run.root / RESOLVED).read_text(),
        "config": yaml.safe_load((run.root / RESOLVED).read_text()),
        "accept_at": accept_at,
    }
    environment = Environment(
        loader=PackageLoader("thinkedit.evals.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "interval_bar": interval_bar,
        "number": number,
        "duration": duration,
        "headline": headline,
    }
    html = environment.get_template("report.html.j2").render(context)
    part = run.report.with_name(".tmp-report.html")
    part.write_text(html, encoding="utf-8")
    part.replace(run.report)
    return run.report


def duration(seconds: float) -> str:
    """12 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def shares(seconds: Mapping[str, float]) -> list[Share]:
    whole = sum(seconds.values())
    return [Share(name, value, 100 * value / whole) for name, value in seconds.items()] if whole > 0 else []


def _cards(run: RunFolder, played: Mapping[str, Sequence[Episode]], accept_at: float) -> list[Card]:
    """Episodes of the learned thinkers (of the scripted ones where there are none), and failures
    that training met."""
    learned = {arm: episodes for arm, episodes in played.items() if arm not in _SCRIPTED}
    newest_first = dict(reversed(list((learned or played).items())))
    chosen = choose(newest_first, accept_at, per_kind=4)
    cards = [card(arm, episode, accept_at) for arm, episode in chosen]
    failures = (e for e in TrajectoryStore(run.trajectories).read() if not e.outcome.valid)
    cards += [card(TRAINING, episode, accept_at) for episode, _ in zip(failures, range(6), strict=False)]
    return cards


def _hero(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The line of progress: single edit, SFT, SFT + GRPO, each with its gain on the one before."""
    gains = {gain["to"]: gain for gain in summary["gains"]}
    names = ["single_edit", *gains] if gains else list(summary["arms"])[:3]
    return [
        {
            "label": label(name),
            "overall": summary["arms"][name]["overall"],
            "gain": gains.get(name),
            "arm": name,
        }
        for name in names
        if name in summary["arms"] and summary["arms"][name]["overall"]
    ]


def _by_turn(summary: Mapping[str, Any]) -> Figure | None:
    series = []
    for offset, (arm, figures) in enumerate(
        (arm, f) for arm, f in summary["arms"].items() if arm != "single_edit" and f["by_turn"][0]
    ):
        points = figures["by_turn"]
        # A little apart sideways, or the whiskers of two arms hide each other.
        x = [i + 0.02 * offset for i in range(len(points))]
        low = [p["low"] if p["low"] is not None else p["mean"] for p in points]
        high = [p["high"] if p["high"] is not None else p["mean"] for p in points]
        series.append(
            Series(figures["label"], x, [p["mean"] for p in points], ARM_CSS.get(arm, "c-accent"), low, high)
        )
    if not series:
        return None
    svg = line_chart(series, low=0, high=10, integer_x=True, x_label="critiques", width=520, height=260)
    return Figure("Score by critique", "", svg, legend=tuple((s.name, s.css) for s in series))


def _task_types(summary: Mapping[str, Any]) -> tuple[list[str], list[tuple[str, str, list[Any]]]]:
    """Kinds of task, and per arm the label, colour and figures by kind."""
    kinds = sorted({kind for figures in summary["arms"].values() for kind in figures["by_task_type"]})
    rows = [
        (
            figures["label"],
            ARM_CSS.get(arm, "c-accent"),
            [figures["by_task_type"].get(kind) for kind in kinds],
        )
        for arm, figures in summary["arms"].items()
    ]
    return kinds, rows


def _outcome_table(summary: Mapping[str, Any]) -> tuple[list[str], list[tuple[str, list[int]]]]:
    rows = {figures["label"]: figures["outcomes"] for figures in summary["arms"].values()}
    rows["GRPO training"] = summary["training"]["outcomes"]
    order = ["ok", "malformed", "editor_failed", "judge_failed", "timeout", "budget"]
    return order, [(name, [counts.get(o, 0) for o in order]) for name, counts in rows.items() if counts]


def _leaf_phases(seconds: Mapping[str, float]) -> dict[str, float]:
    """verl's timers, largest first; what they leave of the step, and the tiny ones, as "other"."""
    leaves = {name: value for name, value in seconds.items() if name != "step" and "/" not in name}
    whole = max(seconds.get("step", 0.0), sum(leaves.values()))
    shown = {name: value for name, value in leaves.items() if value >= 0.005 * whole}
    ordered = dict(sorted(shown.items(), key=lambda item: -item[1]))
    other = whole - sum(shown.values())
    return ordered | {"other": other} if other > 0.005 * whole else ordered


__all__ = ["build_report", "duration", "shares"]
