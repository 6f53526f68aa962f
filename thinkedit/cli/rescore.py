"""`thinkedit rescore`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from thinkedit.configs.schema import RewardConfig
    from thinkedit.evals.rescore import Rescoring


def rescore(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", file_okay=False, exists=True)],
    profile: Annotated[
        str | None, typer.Option("--profile", "-p", help="A reward profile; default: the run's own reward.")
    ] = None,
    weight: Annotated[
        list[str] | None,
        typer.Option("--weight", "-w", metavar="TERM=NUMBER", help="Weights instead of the profile's."),
    ] = None,
    arm: Annotated[
        str | None, typer.Option("--arm", help="Episodes of an evaluation arm instead of training.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the episodes with their new rewards to this folder.")
    ] = None,
) -> None:
    """Score stored episodes again under another reward, without one edit or verdict.

    Under the run's own reward every logged total comes out again, to the last bit.
    """
    from thinkedit.actors.store import TrajectoryStore
    from thinkedit.errors import ConfigError, DataError, UnknownName
    from thinkedit.evals import rescore as scoring
    from thinkedit.evals.run import RunFolder
    from thinkedit.rewards.rubric import Rubric

    folder = RunFolder(run)
    config = folder.config()
    if arm is not None and arm not in folder.arms():
        raise UnknownName("arm", arm, folder.arms())
    store = TrajectoryStore(folder.arm(arm) if arm else folder.trajectories)
    if not store.shards():
        raise DataError(f"no episodes are stored in {store.root}")
    if out is not None and any(out.glob("episodes-*.parquet")):
        raise ConfigError(f"{out} holds episodes already; choose another folder")

    reward = _reward(config.reward, profile, weight or [])
    found = scoring.Rescoring()
    rescored = scoring.rescore(
        store.read(tokens=out is not None),
        Rubric.from_config(reward),
        accept_at=config.episode.accept_at,
        into=found,
    )
    if out is None:
        for _ in rescored:
            pass
    else:
        with TrajectoryStore(out, writer=f"rescored-{reward.profile}") as target:
            for episode in rescored:
                target.append(episode)
    _show(found, old=config.reward.profile, new=reward.profile, out=out)


def _reward(own: RewardConfig, profile: str | None, weights: list[str]) -> RewardConfig:
    """The run's own reward, or another profile with the run's options for the terms it has."""
    from thinkedit.configs.schema import RewardConfig
    from thinkedit.errors import ConfigError
    from thinkedit.rewards.profiles import weights_of

    if profile is None and not weights:
        return own
    parsed: dict[str, float] = {}
    for text in weights:
        name, _, number = text.partition("=")
        try:
            parsed[name] = float(number)
        except ValueError:
            raise ConfigError(f"--weight {text}: expected TERM=NUMBER, such as semantic=0.4") from None
    profile = profile or own.profile
    terms = weights_of(profile, parsed)
    options = {name: value for name, value in own.options.items() if name in terms}
    return RewardConfig(profile=profile, weights=parsed, options=options)


def _show(found: Rescoring, *, old: str, new: str, out: Path | None) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=True, highlight=False)
    flips, members = found.sign_flips()
    facts = Table.grid(padding=(0, 2))
    facts.add_row("episodes", f"{found.episodes:,}")
    facts.add_row("turns", f"{found.turns:,}, of them {found.ungraded:,} without a reward, as before")
    facts.add_row("reproduced exactly", f"{found.reproduced:,} of {found.scored:,}")
    facts.add_row("largest difference", f"{found.largest_difference:.6g}")
    facts.add_row("mean total", f"{_number(found.old_mean)} → {_number(found.new_mean)}")
    facts.add_row("advantages that change sign", f"{flips:,} of {members:,} turns with siblings")
    console.print(facts)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("term", f"{old}: mean", "weight", f"{new}: mean", "weight"):
        table.add_column(column, justify="left" if column == "term" else "right")
    for term in found.terms():
        table.add_row(
            term.name,
            _number(term.old_mean),
            _number(term.old_weight, "g"),
            _number(term.new_mean),
            _number(term.new_weight, "g"),
        )
    console.print()
    console.print(table)
    if out is not None:
        console.print(f"\nwritten to {out}")


def _number(value: float | None, form: str = ".4f") -> str:
    return "–" if value is None else format(value, form)
