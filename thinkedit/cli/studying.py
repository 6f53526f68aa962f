"""One seed of the study: train what its missing cells need, play them, read all back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from thinkedit.cli import stages
from thinkedit.cli.progress import counter
from thinkedit.configs.load import load_config
from thinkedit.configs.schema import Config
from thinkedit.envs.build import Parts
from thinkedit.evals.arms import Thinkers
from thinkedit.evals.run import RunFolder
from thinkedit.evals.study.plan import BASE, CELLS, QUESTIONS, SFT, TRAININGS, Cell
from thinkedit.evals.study.play import Played, play_cell, read_cell


def run_seed(
    recipe: str, overrides: Sequence[str], folder: Path, seed: int, questions: Sequence[str]
) -> dict[str, list[Played]]:
    """Everything that the questions need of one seed.

    What is finished in `folder` is kept. A model is trained only where a missing cell needs it, so that
    the cells alone can be counted anew.

    Returns:
        The played tasks by cell: of all cells that are there, also those that no question here needs.
    """

    def configured(root: Path, more: Sequence[str] = ()) -> Config:
        return load_config(recipe, [*overrides, f"seed={seed}", f"run_dir={root}", *more])

    needed = {row.cell for question in QUESTIONS if question.key in questions for row in question.rows}
    missing = [cell for cell in CELLS if cell.name in needed and not _file(folder, cell).exists()]
    missing.sort(key=lambda cell: cell.thinker)  # each model's weights are loaded once
    config = configured(folder)
    run = stages.open_run(config)  # a folder of other settings is refused, not counted
    if missing:
        models = {BASE: Path(config.policy.path)}
        trainings = [
            training for training in TRAININGS if any(cell.thinker == training.name for cell in missing)
        ]
        if trainings or any(cell.thinker == SFT for cell in missing):
            models[SFT] = stages.warm_start(config, run)
        for training in trainings:
            trained = configured(folder / training.name, training.overrides)
            data = stages.to_rehearse(config, run)
            models[training.name] = stages.reinforce(trained, stages.open_run(trained), models[SFT], data)
        playing = [(cell, configured(folder, cell.overrides)) for cell in missing]
        asyncio.run(_play(config, run, playing, models))
    files = {cell: _file(folder, cell) for cell in CELLS}
    return {
        cell.name: read_cell(file, cell.tasks(config.eval.tasks))
        for cell, file in files.items()
        if file.exists()
    }


async def _play(
    config: Config, run: RunFolder, cells: Sequence[tuple[Cell, Config]], models: Mapping[str, Path]
) -> None:
    with closing(Parts.from_config(config)) as parts:
        async with Thinkers(parts) as thinkers:
            for cell, played in cells:
                policy = await thinkers.get(cell.thinker, models.get(cell.thinker))
                count = cell.tasks(config.eval.tasks)
                with (
                    closing(Parts.from_config(played)) as its_parts,
                    stages.phase(run, "study"),
                    counter(cell.name, count) as progress,
                ):
                    await play_cell(
                        its_parts, cell, policy, _file(run.root, cell), count=count, progress=progress
                    )


def _file(folder: Path, cell: Cell) -> Path:
    return folder / "cells" / f"{cell.name}.jsonl"
