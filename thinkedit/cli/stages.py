"""The stages of a run as functions, in order. Each finishes or resumes its part of the run folder."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from thinkedit.cli.progress import counter, steps
from thinkedit.configs.check import unmet
from thinkedit.configs.load import RESOLVED, save_config
from thinkedit.configs.schema import Config, rehearsed_in_all
from thinkedit.envs.build import Parts
from thinkedit.envs.protocol import Protocol
from thinkedit.errors import ConfigError
from thinkedit.evals.run import RunFolder, label

console = Console(stderr=True)

GRPO_FIGURES = {
    "reward/total/mean": "reward",
    "episode/overall_end/mean": "O",
    "reply/format_rate": "format",
    "actor/kl_loss": "KL",
    "gap/prob_max": "gap",
    "timing_s/step": "s/step",
}


def open_run(config: Config) -> RunFolder:
    """The run folder of a configuration; a new one gets the resolved configuration.

    Limits may change while a run is under way: they decide how fast it goes and how far, not where to.

    Raises:
        ConfigError: the folder holds a run with another configuration.
    """
    run = RunFolder(Path(config.run_dir))
    saved = run.root / RESOLVED
    if saved.exists():
        differing = differences(replace(run.config(), limits=config.limits), config)
        if differing:
            start = sft_policy(run)
            hint = (
                f" (`thinkedit train --policy {start}` starts from its SFT model)" if start.exists() else ""
            )
            raise ConfigError(
                f"{run.root} holds a run with other settings ({', '.join(differing)}): "
                f"choose another name=...{hint}, or delete the folder"
            )
    run.root.mkdir(parents=True, exist_ok=True)
    save_config(config, saved)
    return run


def differences(saved: Config, wanted: Config) -> list[str]:
    """Dotted names of the settings that differ."""

    def flat(value: Any, prefix: str = "") -> dict[str, Any]:
        if not isinstance(value, dict):
            return {prefix: value}
        return {
            k: v for key, item in value.items() for k, v in flat(item, f"{prefix}.{key}".strip(".")).items()
        }

    old, new = flat(asdict(saved)), flat(asdict(wanted))
    return sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))


def print_plan(config: Config) -> None:
    """What a run would do, checked against verl's own configuration; starts and downloads nothing."""
    from thinkedit.learner.grpo import plan

    table = Table(title=f"Plan of {config.name}", show_header=False, title_justify="left")
    _, figures = plan(config)
    for name, value in figures.items():
        table.add_row(name.replace("_", " "), str(value))
    console.print(table)
    for problem in unmet(config):
        console.print(f"not runnable here: {problem}", style="yellow")


def demonstrations_file(run: RunFolder) -> Path:
    return run.root / "data" / "demonstrations.parquet"


def rehearsal_file(run: RunFolder) -> Path:
    return run.root / "data" / "rehearsal.parquet"


def sft_policy(run: RunFolder) -> Path:
    """The SFT model as a Hugging Face folder."""
    return run.root / "sft" / "policy"


def grpo_policy(run: RunFolder) -> Path:
    """The trained thinker as a Hugging Face folder."""
    return run.root / "grpo" / "policy"


@contextmanager
def phase(run: RunFolder, name: str) -> Iterator[None]:
    """Times a stage into the run folder, also when it is interrupted."""
    began = time.monotonic()
    try:
        yield
    finally:
        run.add_seconds(name, time.monotonic() - began)


def demonstrate(config: Config, run: RunFolder) -> Path:
    """The SFT examples: from `sft.data`, or played by the scripted expert until there are enough.

    The expert plays those that `grpo.rehearsal` will ask for too, into a file of their own.
    """
    from thinkedit.actors.policy import ScriptedPolicy
    from thinkedit.data.demonstrations import write_demonstrations
    from thinkedit.envs.world.experts import NaiveExpert

    path = demonstrations_file(run)
    counts = {path: config.sft.demonstrations}
    if config.sft.data is None and (rehearsed := rehearsed_in_all(config.grpo)):
        counts[rehearsal_file(run)] = rehearsed
    if all(file.exists() for file in counts):
        return path
    if config.sft.data is not None:
        from thinkedit.data.convert import write_sft_table

        with phase(run, "demonstrations"):
            write_sft_table(
                Path(config.sft.data), path, Protocol(config.protocol, accept_at=config.episode.accept_at)
            )
        return path
    played = replace(config, editor=config.sft.editor) if config.sft.editor.name else config
    with (
        closing(Parts.from_config(played)) as parts,
        phase(run, "demonstrations"),
        counter("demonstrations", sum(counts.values())) as progress,
    ):
        asyncio.run(
            write_demonstrations(
                counts,
                tasks=parts.tasks,
                split="sft",
                make_session=parts.session,
                expert=ScriptedPolicy(NaiveExpert.from_parts(parts), seed=config.seed),
                protocol=parts.protocol,
                progress=progress,
            )
        )
    return path


def sft_steps(config: Config, data: Path) -> int:
    """Optimiser steps of the warm start on a parquet; verl drops a last batch that is not full."""
    import pyarrow.parquet as pq

    examples = int(pq.read_metadata(data).num_rows)
    return config.sft.epochs * (examples // config.sft.batch_size)


def warm_start(config: Config, run: RunFolder) -> Path:
    """SFT from the base policy on the demonstrations; a finished one is kept."""
    from thinkedit.learner.sft import run_sft

    policy = sft_policy(run)
    if policy.exists():
        return policy
    data = demonstrate(config, run)
    with phase(run, "sft"), steps("SFT", sft_steps(config, data), {"train/loss": "loss"}) as on_step:
        run_sft(config, data, run.root / "sft", on_step=on_step)
    return policy


def to_rehearse(config: Config, run: RunFolder) -> Path | None:
    """What `grpo.rehearsal` learns from: all of `sft.data`, or what the expert played for it."""
    if not config.grpo.rehearsal.batch_size:
        return None
    played = demonstrate(config, run)
    return played if config.sft.data else rehearsal_file(run)


def reinforce(config: Config, run: RunFolder, start: Path, rehearsed: Path | None = None) -> Path:
    """GRPO from `start`; resumes from the last checkpoint, a finished one is kept.

    rehearsed: demonstrations for `grpo.rehearsal`; without them the run makes its own.
    """
    from thinkedit.learner.grpo import run_grpo

    policy = grpo_policy(run)
    if policy.exists():
        return policy
    data = rehearsed or to_rehearse(config, run)
    with phase(run, "grpo"), steps("GRPO", config.grpo.steps, GRPO_FIGURES) as on_step:
        run_grpo(config, start, run.root / "grpo", demonstrations=data, on_step=on_step)
    return policy


def evaluate(config: Config, run: RunFolder, arms: Mapping[str, Path | None]) -> None:
    """Play the held-out tasks under each arm that has no episodes yet."""
    from thinkedit.evals.arms import Thinkers, play_arm

    async def play_missing(parts: Parts) -> None:
        async with Thinkers(parts) as thinkers:
            for arm, path in missing.items():
                with phase(run, "evaluation"), counter(f"evaluate {arm}", config.eval.tasks) as progress:
                    policy = await thinkers.get(arm, path)
                    await play_arm(parts, arm, policy, run.arm(arm), progress=progress)

    missing = {arm: path for arm, path in arms.items() if not run.arm(arm).exists()}
    if missing:
        with closing(Parts.from_config(config)) as parts:
            asyncio.run(play_missing(parts))


def standard_arms(config: Config, run: RunFolder) -> dict[str, Path | None]:
    """The arms of a run's report: its base, its stages as far as they are there, and the experts."""
    found = {"base": Path(config.policy.path), "sft": sft_policy(run), "grpo": grpo_policy(run)}
    arms: dict[str, Path | None] = {name: path for name, path in found.items() if path.is_dir()}
    if config.tasks.name == "world":
        arms["naive_expert"] = None
        if config.editor.name == "procedural":
            arms["aware_expert"] = None
    return arms


def conclude(run: RunFolder) -> None:
    """Write summary.json and report.html, and print the figures."""
    from thinkedit.evals.report import build_report
    from thinkedit.evals.run import write_json
    from thinkedit.evals.summary import summarise_run

    summary = summarise_run(run)
    write_json(run.summary, summary)
    build_report(run, summary)
    print_summary(run)


def print_summary(run: RunFolder) -> None:
    """The headline table of a finished run."""
    import json

    from thinkedit.rewards.limits.ledger import headline

    summary = json.loads(run.summary.read_text())
    table = Table(title=f"{run.root}: {summary['tasks']} held-out tasks", title_justify="left")
    for column in ("", "overall score 0-10", "95 % interval", "format", "critic error, first edits"):
        table.add_column(column, justify="left" if not column else "right")
    for arm, figures in summary["arms"].items():
        overall = figures["overall"]
        table.add_row(
            label(arm),
            f"{overall['mean']:.2f}",
            f"{overall['low']:.2f} to {overall['high']:.2f}",
            _plain(figures["format_validity"]),
            _plain((figures["critic_first_edit"] or {}).get("overall")),
        )
    console.print(table)
    if spending := summary.get("spending"):  # absent in runs of before there were limits
        console.print(f"  {headline(spending)}")
    for name, check in summary["checks"].items():
        mark = "[green]holds[/]" if check["holds"] else "[red]misses[/]"
        console.print(f"  {mark:>20} {name}: {_plain(check['value'])} (target {check['target']})")


def _plain(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float | int) else "-"
