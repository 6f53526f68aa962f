"""The figures of a run, from its stored episodes and metrics alone: `summary.json`.

Every number is counted from what was recorded; nothing here edits, judges or samples.
docs/run-folder.md lists the fields.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, pairwise
from typing import Any

from thinkedit.actors.store import TrajectoryStore
from thinkedit.configs.schema import LimitsConfig
from thinkedit.envs.world.reading import episode_reading_fidelity
from thinkedit.envs.world.tasks import WorldTasks
from thinkedit.errors import DataError, JudgeMismatch
from thinkedit.evals.rescore import largest_difference
from thinkedit.evals.run import RunFolder, label
from thinkedit.evals.stats import critic_error, mean_interval, paired_difference
from thinkedit.rewards.limits.ledger import read_ledger
from thinkedit.rewards.rubric import Rubric
from thinkedit.types import End, Episode, Outcome, Turn

SCHEMA = 2
SINGLE_EDIT = "single_edit"
LEARNING = (SINGLE_EDIT, "sft", "grpo")  # the line of progress, each compared with the one before
GAP = "gap/prob_max"
TARGETS = {"sft_gain": 1.0, "grpo_gain": 1.5, "format": 0.98, "reading": 0.95, "gap": 1e-3}

ReadingFidelity = Callable[[Episode], float | None]
"""How much of what `<think>` says about the pictures is so, in [0, 1]; None with nothing to check."""


def summarise(
    arms: Mapping[str, Iterable[Episode]],
    *,
    max_turns: int,
    resamples: int = 2000,
    seed: int = 0,
    reading: ReadingFidelity | None = None,
) -> dict[str, Any]:
    """Figures of several thinkers on the same held-out tasks.

    Args:
        arms: episodes by arm. Without "single_edit" it is made of the first edits, which all share.
        max_turns: critiques an episode may have; the scores by turn have `max_turns + 1` entries.
        reading: measures what `<think>` says against the pictures, where the tasks know them.

    Raises:
        DataError: two arms saw different tasks, or different first edits of one task.
        JudgeMismatch: verdicts of two judges; their means cannot be compared.
    """
    played = {arm: list(episodes) for arm, episodes in arms.items()}
    _check_comparable(played)
    if SINGLE_EDIT not in played and played:
        played = {SINGLE_EDIT: [_first_edit_only(e) for e in next(iter(played.values()))], **played}
    options = {"resamples": resamples, "seed": seed}
    figures = {
        arm: _arm(arm, episodes, max_turns=max_turns, reading=reading, **options)
        for arm, episodes in played.items()
    }
    finals = {arm: _finals(episodes) for arm, episodes in played.items()}
    line = [arm for arm in LEARNING if finals.get(arm)]
    gains = [
        {"from": a, "to": b} | paired_difference(finals[a], finals[b], **options).as_dict()
        for a, b in pairwise(line)
    ]
    sft, grpo = (_first_edit_errors(played.get(arm, ())) for arm in ("sft", "grpo"))
    change = paired_difference(sft, grpo, **options).as_dict() if sft.keys() & grpo.keys() else None
    judges = {(v.judge_id, v.prompt_hash) for e in _all(played) if (v := e.final)}
    return {
        "tasks": len({e.task.uid for e in _all(played)}),
        "judge": [{"id": judge, "prompt_hash": prompt} for judge, prompt in sorted(judges)],
        "arms": figures,
        "gains": gains,
        "critic_change": change,
    }


def summarise_run(run: RunFolder) -> dict[str, Any]:
    """Everything `summary.json` holds, for a run with at least one evaluation arm.

    Also scores every stored turn again under the run's own reward: `rescored` says how far the
    farthest logged total is from that, which must be 0.

    Raises:
        DataError: no run folder, or nothing evaluated yet.
    """
    config = run.config()
    arms = {name: list(store.read()) for name, store in run.arms().items()}
    if not arms:
        raise DataError(f"nothing was evaluated in {run.root}: {run.evaluation} holds no finished arm")
    summary = summarise(
        arms,
        max_turns=config.episode.max_turns,
        resamples=config.eval.bootstrap,
        seed=config.eval.seed,
        # Only the world can be read back exactly from its pictures.
        reading=episode_reading_fidelity if config.tasks.name == WorldTasks.name else None,
    )
    rubric, accept_at = Rubric.from_config(config.reward), config.episode.accept_at
    training = _training(run)
    evaluated = (episode for episodes in arms.values() for episode in episodes)
    stored = chain(evaluated, TrajectoryStore(run.trajectories).read())
    turns, difference = largest_difference(stored, rubric, accept_at=accept_at)
    made_up = sum(map(made_up_rewards, arms.values())) + training["made_up_rewards"]
    summary = {"schema": SCHEMA, "name": config.name, "seed": config.seed, **summary}
    summary["made_up_rewards"] = made_up
    summary["rescored"] = {"profile": config.reward.profile, "turns": turns, "largest_difference": difference}
    summary["training"] = training
    summary["spending"] = _spending(run, config.limits)
    summary["seconds"] = run.seconds()
    summary["checks"] = checks(summary)
    return summary


def made_up_rewards(episodes: Iterable[Episode]) -> int:
    """Turns that nobody could grade and that have a reward all the same, counted one by one."""
    return sum(
        turn.reward is not None for episode in episodes for turn in episode.turns if not turn.outcome.valid
    )


def overall_by_turn(episode: Episode, max_turns: int) -> list[float] | None:
    """O after 0, 1, … `max_turns` critiques; an early stop fills forward. None if it failed.

    Filling forward keeps `n` equal at every turn: without it the later means cover only the
    episodes that were hard enough to go on.
    """
    verdicts = [episode.first, *(turn.after for turn in episode.turns)]
    scores = [verdict.scores.overall for verdict in verdicts if verdict is not None]
    if len(scores) < len(verdicts) or not episode.outcome.valid:
        return None
    return scores + [scores[-1]] * (max_turns + 1 - len(scores))


def checks(summary: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What a good run shows, as value, target and whether it holds; only what can be computed."""
    arms = summary["arms"]
    found: dict[str, dict[str, Any]] = {}

    def add(name: str, value: float | None, holds: bool, target: str) -> None:
        found[name] = {"value": value, "target": target, "holds": bool(holds)}

    line = [arm for arm in LEARNING if arm in arms and arms[arm]["overall"]]
    for low, high in pairwise(line):
        a, b = arms[low]["overall"], arms[high]["overall"]
        wanted = TARGETS["sft_gain"] if high == "sft" else TARGETS["grpo_gain"]
        gain = b["mean"] - a["mean"]
        add(f"{high}_above_{low}", gain, gain >= wanted, f"at least {wanted}")
        apart = b["low"] - a["high"]
        add(f"{high}_and_{low}_intervals_apart", apart, apart > 0, "above 0")
    for arm in ("sft", "grpo"):
        if arm in arms and arms[arm]["format_validity"] is not None:
            value = arms[arm]["format_validity"]
            add(f"{arm}_format_validity", value, value >= TARGETS["format"], f"at least {TARGETS['format']}")
    sft, grpo = (arms.get(arm, {}).get("critic_first_edit") for arm in ("sft", "grpo"))
    if sft and grpo:
        change = grpo["overall"] - sft["overall"]
        add("critic_error_after_grpo_minus_sft", change, change <= 0, "at most 0")
        margin = grpo["overall"] - grpo["constant"]
        add("critic_error_minus_constant", margin, margin < 0, "below 0")
    sft, grpo = (arms.get(arm, {}).get("reading_fidelity") for arm in ("sft", "grpo"))
    if sft and grpo:
        ratio = grpo["mean"] / sft["mean"] if sft["mean"] else math.nan
        add("reading_fidelity_grpo_over_sft", ratio, ratio >= TARGETS["reading"], "at least 0.95")
    add("made_up_rewards", summary["made_up_rewards"], summary["made_up_rewards"] == 0, "exactly 0")
    difference = summary["rescored"]["largest_difference"]
    add("rescored_difference", difference, difference == 0, "exactly 0")
    gap = summary["training"]["probability_gap"]
    if gap is not None:
        holds = gap["unmeasured_steps"] == 0 and gap["largest"] < TARGETS["gap"]
        add("probability_gap", gap["largest"], holds, "below 0.001 at every step")
    return found


def _arm(
    arm: str,
    episodes: Sequence[Episode],
    *,
    max_turns: int,
    reading: ReadingFidelity | None,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    def mean(values: Sequence[float]) -> dict[str, Any] | None:
        return mean_interval(values, resamples=resamples, seed=seed).as_dict() if values else None

    turns = [turn for episode in episodes for turn in episode.turns]
    graded = [e for e in episodes if overall_by_turn(e, max_turns) is not None]
    courses = [course for e in graded if (course := overall_by_turn(e, max_turns)) is not None]
    finals = [verdict for e in graded if (verdict := e.final) is not None]
    types: dict[str, list[float]] = defaultdict(list)
    for episode, course in zip(graded, courses, strict=True):
        types[episode.task.task_type].append(course[-1])
    ends = Counter(str(e.turns[-1].end) for e in episodes if e.turns and e.turns[-1].end)
    fidelity = [f for e in episodes if reading and (f := reading(e)) is not None]
    return {
        "label": label(arm),
        "episodes": len(episodes),
        "failed": len(episodes) - len(graded),
        "overall": mean([course[-1] for course in courses]),
        "semantic": mean([v.scores.semantic for v in finals]),
        "quality": mean([v.scores.quality for v in finals]),
        "by_turn": [mean([course[i] for course in courses]) for i in range(max_turns + 1)],
        "by_task_type": {kind: mean(values) for kind, values in sorted(types.items())},
        "turns": len(turns),
        "edits_per_episode": _share(sum(_edits(e) for e in episodes), len(episodes)),
        "format_validity": _share(sum(t.critique is not None for t in turns), len(turns)),
        "keep_rate": _share(sum(t.kept for t in turns), len(turns)),
        "accept_rate": _share(ends[End.ACCEPTED], len(episodes)) if turns else None,
        "ends": dict(ends),
        "outcomes": _outcomes(episodes),
        "parse_errors": dict(Counter(str(t.error) for t in turns if t.error)),
        "critic": _critic(turns),
        "critic_first_edit": _critic([t for t in turns if t.index == 0]),
        "reading_fidelity": mean(fidelity),
        "made_up_rewards": made_up_rewards(episodes),
    }


def _training(run: RunFolder) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    episodes = made_up = turns = 0
    for episode in TrajectoryStore(run.trajectories).read():
        episodes += 1
        turns += len(episode.turns)
        counts.update(_outcomes([episode]))
        made_up += made_up_rewards([episode])
    steps = run.steps("grpo")
    gaps = [(row[GAP], row["step"]) for row in steps if row.get(GAP) is not None]
    gap = None
    if steps:
        # A NaN must not hide behind smaller numbers, nor a step behind those that were measured.
        largest, step = max(gaps, key=lambda g: math.inf if math.isnan(g[0]) else g[0], default=(None, None))
        gap = {"largest": largest, "step": step, "unmeasured_steps": len(steps) - len(gaps)}
    phases: dict[str, float] = defaultdict(float)
    for row in steps:
        for name, value in row.items():
            if name.startswith("timing_s/"):
                phases[name.removeprefix("timing_s/")] += value
    return {
        "steps": len(steps),
        "episodes": episodes,
        "turns": turns,
        "outcomes": dict(counts),
        "made_up_rewards": made_up,
        "probability_gap": gap,
        "seconds": dict(phases),
    }


def _spending(run: RunFolder, limits: LimitsConfig) -> dict[str, Any] | None:
    """The ledger with the run's budget; None where no call was metered."""
    ledger = read_ledger(run.ledger)
    return None if ledger is None else {"budget": limits.budget, **ledger}


def _outcomes(episodes: Iterable[Episode]) -> dict[str, int]:
    """Turns by outcome; an episode that failed before its first turn counts as one."""
    counts: Counter[str] = Counter()
    for episode in episodes:
        counts.update(str(turn.outcome) for turn in episode.turns)
        if not episode.turns and episode.outcome is not Outcome.OK:
            counts[str(episode.outcome)] += 1
    return dict(counts)


def _critic(turns: Iterable[Turn]) -> dict[str, Any] | None:
    scored = [(t.critique.scores, t.before.scores) for t in turns if t.critique is not None]
    error = critic_error([p for p, _ in scored], [j for _, j in scored])
    return None if error is None else error.as_dict()


def _first_edit_errors(episodes: Iterable[Episode]) -> dict[str, float]:
    """The critic's error over both axes on each first edit, by task and seed; none for a malformed reply."""
    found = {}
    for episode in episodes:
        critic = _critic(episode.turns[:1])
        if critic is not None:
            found[episode.group] = float(critic["overall"])
    return found


def _edits(episode: Episode) -> int:
    """Editor calls: the first edit and one per turn that asked for another."""
    return 1 + sum(not turn.kept and turn.critique is not None for turn in episode.turns)


def _finals(episodes: Iterable[Episode]) -> dict[str, float]:
    courses = {e.group: overall_by_turn(e, len(e.turns)) for e in episodes}
    return {group: course[-1] for group, course in courses.items() if course is not None}


def _first_edit_only(episode: Episode) -> Episode:
    return Episode(
        uid=episode.uid,
        group=episode.group,
        task=episode.task,
        seed=episode.seed,
        first_edit=episode.first_edit,
        first=episode.first,
        outcome=Outcome.OK if episode.first is not None else episode.outcome,
    )


def _check_comparable(arms: Mapping[str, Sequence[Episode]]) -> None:
    judges = {(v.judge_id, v.prompt_hash) for e in _all(arms) if (v := e.first) is not None}
    if len(judges) > 1:
        raise JudgeMismatch(f"the arms were graded by different judges: {sorted(judges)}")
    reference: tuple[str, dict[str, Any]] | None = None
    for arm, episodes in arms.items():
        firsts = {e.group: e.first.scores if e.first else None for e in episodes}
        if len(firsts) < len(episodes):
            raise DataError(f"arm {arm!r} has a task and seed twice")
        if reference is None:
            reference = arm, firsts
            continue
        other, known = reference
        if firsts.keys() != known.keys():
            odd = sorted(firsts.keys() ^ known.keys())[:3]
            raise DataError(
                f"arms {other!r} and {arm!r} saw different tasks, e.g. {odd}; evaluate both again"
            )
        # A first edit that failed in one arm only is an outage, and counted as one.
        moved = [g for g, s in firsts.items() if None not in (s, known[g]) and s != known[g]]
        if moved:
            raise DataError(
                f"arms {other!r} and {arm!r} started from different first edits, e.g. {moved[:3]}: "
                "editor, judge or seed changed in between; evaluate both again"
            )


def _all(arms: Mapping[str, Sequence[Episode]]) -> Iterable[Episode]:
    return (episode for episodes in arms.values() for episode in episodes)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
