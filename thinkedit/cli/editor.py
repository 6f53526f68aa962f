"""`thinkedit train-editor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train_editor(
    out: Annotated[
        Path, typer.Argument(help="Folder to write: a new or empty one, unless --resume is given.")
    ],
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 1500,
    minutes: Annotated[float | None, typer.Option(help="Stop after this many minutes.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples a step.")] = 32,
    seed: Annotated[int, typer.Option(help="Of the weights and of the samples.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the training that was stopped in this folder.")
    ] = False,
    held_out: Annotated[int, typer.Option(min=1, help="Tasks to measure on, five edits each.")] = 400,
) -> None:
    """Train the small diffusion editor on the world, and write it with a model card.

    The folder is an ordinary pipeline of diffusers; editor.options.path=OUT makes it the editor of a run.
    """
    state = out / "training.pt"
    if resume and not state.is_file():
        raise typer.BadParameter(f"nothing to resume: there is no {state}")
    if not resume and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise typer.BadParameter(
            f"{out} exists and is not an empty folder; a stopped training needs --resume"
        )
    out.mkdir(parents=True, exist_ok=True)
    import time

    import torch
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from thinkedit.actors.small_diffusion import card, figures, pipeline, training
    from thinkedit.actors.small_diffusion.editor import SmallDiffusionConfig, SmallDiffusionEditor
    from thinkedit.actors.small_diffusion.tokenizer import build_tokenizer
    from thinkedit.data import editing

    torch.set_num_threads(threads)
    config = training.TrainConfig(steps=steps, minutes=minutes, batch_size=batch_size, seed=seed)
    pipe = pipeline.build(build_tokenizer(editing.vocabulary()), seed=seed)

    teacher = training.Training(pipe, config)
    if resume:
        teacher.resume(state)
    samples = editing.editing(seed, teacher.log.steps * batch_size)

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        bar = progress.add_task("training", total=1.0)

        def show(row: dict[str, float]) -> None:
            share = max(row["step"] / steps, row["seconds"] / (60 * minutes) if minutes else 0.0)
            note = f"step {row['step']:.0f} loss {row['loss']:.4f} cells {row['cell_loss']:.3f}"
            progress.update(bar, completed=share, description=note)
            if row["step"] % config.log_every == 0:
                teacher.save(state)
                if not progress.console.is_terminal:
                    typer.echo(f"{note} {row['seconds']:.0f} s")

        log = teacher.run(samples, show)
        progress.update(bar, completed=1.0, description="measuring")
        pipeline.save(pipe, out)
        editor = SmallDiffusionEditor(SmallDiffusionConfig(path=str(out)))  # what was written is measured
        began = time.process_time()
        edits: dict[str, list[figures.Edit]] = {
            wording: figures.make_edits(editor, editing.trials(held_out, wording))
            for wording in editing.WORDINGS
        }
        edit_s = (time.process_time() - began) / (held_out * len(edits))
        reseeded = figures.make_edits(editor, editing.trials(held_out, "as given"), first_seed=held_out)
    limit = f" --minutes {minutes:g}" if minutes else ""
    command = f"thinkedit train-editor OUT --steps {steps}{limit} --batch-size {batch_size} --seed {seed}"
    card.write_card(out, pipe, config, log, command, edits=edits, reseeded=reseeded, edit_s=edit_s)
    state.unlink(missing_ok=True)
    found = ", ".join(
        f"{made.done:.3f} {wording} (O {made.overall:.2f})"
        for wording, made in ((wording, figures.Figures.of(made)) for wording, made in edits.items())
    )
    typer.echo(f"wrote {out} after {log.seconds:.0f} s of training; done: {found}")
