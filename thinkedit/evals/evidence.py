"""The evidence page: figures of several runs (seeds) of one recipe, as Markdown with a figure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from thinkedit.errors import DataError
from thinkedit.evals.report.svg import number
from thinkedit.evals.run import ARM_LABELS, RunFolder, label
from thinkedit.evals.summary import SCHEMA

Summary = Mapping[str, Any]


def write_evidence(runs: Sequence[Path], out: Path) -> list[Path]:
    """Write `out` (Markdown) and the figure `out` with suffix .svg, from the runs' summary.json.

    Returns:
        The files written.

    Raises:
        DataError: a run without a summary of this version, or runs of different recipes or seeds twice.
    """
    if not runs:
        raise DataError("evidence needs at least one run folder")
    summaries = [_load(path) for path in runs]
    _check_alike(runs, summaries)
    summaries.sort(key=lambda summary: summary["seed"])
    figure = out.with_suffix(".svg")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.write_text(_figure(summaries), encoding="utf-8")
    out.write_text(_page(summaries, figure.name), encoding="utf-8")
    return [out, figure]


def _load(path: Path) -> Summary:
    file = RunFolder(path).summary
    try:
        summary: Summary = json.loads(file.read_text())
    except FileNotFoundError:
        raise DataError(f"{path} has no {file.name} yet; `thinkedit report {path}` makes one") from None
    if summary.get("schema") != SCHEMA:
        raise DataError(
            f"{file} has version {summary.get('schema')}, this thinkedit reads {SCHEMA}; "
            f"`thinkedit report {path}` makes it anew"
        )
    return summary


def _check_alike(runs: Sequence[Path], summaries: Sequence[Summary]) -> None:
    seeds = [summary["seed"] for summary in summaries]
    if len(set(seeds)) < len(seeds):
        raise DataError(f"two runs have the same seed (seeds {seeds}); their figures are not independent")
    for field in ("name", "judge", "tasks"):
        values = {json.dumps(summary[field]) for summary in summaries}
        if len(values) > 1:
            raise DataError(
                f"the runs differ in {field}: {', '.join(sorted(values))}; show them on two pages"
            )


def _arms(summaries: Sequence[Summary]) -> list[str]:
    """Arms that every run has, in table order."""
    shared = set.intersection(*(set(summary["arms"]) for summary in summaries))
    return [*(arm for arm in ARM_LABELS if arm in shared), *sorted(shared - set(ARM_LABELS))]


def _page(summaries: Sequence[Summary], figure: str) -> str:
    arms = _arms(summaries)
    seeds = [str(summary["seed"]) for summary in summaries]
    first = summaries[0]
    parts = [
        f"# Evidence: `{first['name']}`, {len(seeds)} seed{'s' if len(seeds) > 1 else ''}",
        f"Written by `thinkedit evidence`; do not edit by hand. {first['tasks']} held-out tasks a run; "
        "O = sqrt(semantic · quality) of the final picture, 0–10, with 95 % bootstrap intervals over tasks. "
        "All thinkers of a run saw the same tasks, first edits and editor seeds. "
        "[run-folder.md](run-folder.md) explains each figure; [study-results.md](study-results.md) has the "
        "paper's ablations in the same world.",
        f"![Overall score by thinker and seed]({figure})",
        "## Overall score O",
        _table(
            ["thinker", *(f"seed {seed}" for seed in seeds), "mean over seeds"], _score_rows(summaries, arms)
        ),
        "Each gain is the mean difference on the same tasks:",
        _table(["gain", *(f"seed {seed}" for seed in seeds)], _gain_rows(summaries)),
        "## After each critique",
        "An episode that stopped early keeps its score, so n is equal in every column.",
        _table(_turn_head(first), [_turn_row(summaries, arm) for arm in arms]),
        "## Replies and critic",
        _table(
            ["thinker", "well-formed", "accepted", "edits", "critic error", "best constant", "reading"],
            [_reply_row(summaries, arm) for arm in arms if arm != "single_edit"],
        ),
        "Means over seeds. Critic error: mean |predicted − judged| over both axes on the first edits, "
        "which all thinkers saw alike. Reading: share of what `<think>` says about the pictures that is so.",
        "What GRPO did to the critic's error, as the mean difference on the same first edits:",
        _table(["change", *(f"seed {seed}" for seed in seeds)], [_critic_change_row(summaries)]),
        "## Checks",
        _table(["check", "target", *(f"seed {seed}" for seed in seeds)], _check_rows(summaries)),
        "## Time",
        _table(["phase", *(f"seed {seed}" for seed in seeds)], _time_rows(summaries)),
    ]
    return "\n\n".join(parts) + "\n"


def _score_rows(summaries: Sequence[Summary], arms: Sequence[str]) -> list[list[str]]:
    rows = []
    for arm in arms:
        intervals = [summary["arms"][arm]["overall"] for summary in summaries]
        cells = [_interval(interval) for interval in intervals]
        rows.append([label(arm), *cells, number(_mean([i["mean"] for i in intervals if i]))])
    return rows


def _gain_rows(summaries: Sequence[Summary]) -> list[list[str]]:
    rows = []
    for gain in summaries[0]["gains"]:
        pair = (gain["from"], gain["to"])
        found = [{(g["from"], g["to"]): g for g in summary["gains"]}.get(pair) for summary in summaries]
        rows.append([f"{label(pair[1])} over {label(pair[0])}", *(_interval(g, sign=True) for g in found)])
    return rows


def _critic_change_row(summaries: Sequence[Summary]) -> list[str]:
    cells = (_interval(summary["critic_change"], sign=True) for summary in summaries)
    return ["critic error, SFT + GRPO minus SFT", *cells]


def _turn_head(summary: Summary) -> list[str]:
    turns = len(next(iter(summary["arms"].values()))["by_turn"])
    return ["thinker", "first edit", *(f"{i} critique{'s' if i > 1 else ''}" for i in range(1, turns))]


def _turn_row(summaries: Sequence[Summary], arm: str) -> list[str]:
    courses = zip(*(summary["arms"][arm]["by_turn"] for summary in summaries), strict=True)
    return [label(arm), *(number(_mean([point["mean"] for point in points if point])) for points in courses)]


def _reply_row(summaries: Sequence[Summary], arm: str) -> list[str]:
    def over_seeds(pick: Callable[[Summary], float | None]) -> float | None:
        return _mean([v for summary in summaries if (v := pick(summary["arms"][arm])) is not None])

    def critic(part: str) -> Callable[[Summary], float | None]:
        return lambda figures: (figures["critic_first_edit"] or {}).get(part)

    return [
        label(arm),
        number(over_seeds(lambda f: f["format_validity"]), 3),
        number(over_seeds(lambda f: f["accept_rate"]), 3),
        number(over_seeds(lambda f: f["edits_per_episode"])),
        number(over_seeds(critic("overall"))),
        number(over_seeds(critic("constant"))),
        number(over_seeds(lambda f: (f["reading_fidelity"] or {}).get("mean")), 3),
    ]


def _check_rows(summaries: Sequence[Summary]) -> list[list[str]]:
    names = {name: check["target"] for summary in summaries for name, check in summary["checks"].items()}
    rows = []
    for name, target in names.items():
        checks = [summary["checks"].get(name) for summary in summaries]
        cells = [
            "–" if c is None else f"{number(c['value'], 3)} {'✓' if c['holds'] else '✗'}" for c in checks
        ]
        rows.append([name.replace("_", " "), target, *cells])
    return rows


def _time_rows(summaries: Sequence[Summary]) -> list[list[str]]:
    from thinkedit.evals.report import duration

    phases = list(dict.fromkeys(phase for summary in summaries for phase in summary["seconds"]))
    rows = [
        [phase, *(duration(s["seconds"][phase]) if phase in s["seconds"] else "–" for s in summaries)]
        for phase in phases
    ]
    totals = [duration(sum(summary["seconds"].values())) for summary in summaries]
    return [*rows, ["**all**", *totals]]


def _interval(interval: Mapping[str, Any] | None, *, sign: bool = False) -> str:
    if not interval:
        return "–"
    form = "+.2f" if sign else ".2f"
    mean = format(interval["mean"], form)
    if interval["low"] is None:
        return mean
    return f"{mean} ({interval['low']:{form}} to {interval['high']:{form}})"


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _figure(summaries: Sequence[Summary]) -> str:
    """One line per thinker; a dot with its interval per seed."""
    arms = _arms(summaries)
    left, width, row = 130, 720, 18 * len(summaries) + 16
    height = row * len(arms) + 40
    unit = (width - left - 24) / 10

    def x_of(score: float) -> float:
        return left + score * unit

    parts = []
    for tick in range(0, 11, 2):
        x = f"{x_of(tick):.1f}"
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="8" y2="{height - 30}"/>')
        parts.append(f'<text class="tick" x="{x}" y="{height - 12}" text-anchor="middle">{tick}</text>')
    for i, arm in enumerate(arms):
        middle = 12 + i * row + row / 2
        parts.append(
            f'<text class="name" x="{left - 16}" y="{middle + 4:.1f}" text-anchor="end">{label(arm)}</text>'
        )
        for j, summary in enumerate(summaries):
            overall = summary["arms"][arm]["overall"]
            if not overall:
                continue
            y = middle + (j - (len(summaries) - 1) / 2) * 18
            low, high = overall["low"], overall["high"]
            if low is not None:
                ends = f'x1="{x_of(low):.1f}" x2="{x_of(high):.1f}" y1="{y:.1f}" y2="{y:.1f}"'
                parts.append(f'<line class="ci {arm}" {ends}/>')
            parts.append(
                f'<circle class="{arm}" cx="{x_of(overall["mean"]):.1f}" cy="{y:.1f}" r="4.5">'
                f"<title>{label(arm)}, seed {summary['seed']}: {_interval(overall)}</title></circle>"
            )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="Inter, system-ui, sans-serif" role="img" aria-label="Overall score by thinker">'
        f"<style>{_FIGURE_STYLE}</style>{''.join(parts)}</svg>\n"
    )


_FIGURE_STYLE = (
    ".grid{stroke:#8884;stroke-width:1}.tick,.name{fill:#70747c;font-size:12px}"
    ".name{fill:#44474e;font-size:14px;font-weight:550}"
    "circle,.ci{--c:#5b5bd6;fill:var(--c);stroke:var(--c)}.ci{stroke-width:3;stroke-linecap:round;opacity:.45}"
    ".single_edit{--c:#8b8d98}.base{--c:#b4b6bf}.naive_expert{--c:#d08700}.sft{--c:#2f7de1}"
    ".grpo{--c:#6e56cf}.aware_expert{--c:#0f9d8a}"
    "@media(prefers-color-scheme:dark){.name{fill:#c3c7ce}.tick{fill:#8f949d}"
    ".sft{--c:#63a4ff}.grpo{--c:#a08cf5}.aware_expert{--c:#3ccfba}.naive_expert{--c:#f0b13c}}"
)
