"""`thinkedit make-policy` and `thinkedit pretrain-base`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from thinkedit.configs.check import DEVICES
from thinkedit.errors import ConfigError, UnknownName

Out = Annotated[Path, typer.Argument(help="Folder to write; must not exist or be empty.")]


def make_policy(
    out: Out,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="Random weights instead of the shipped base's.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the random weights.")] = 0,
) -> None:
    """Write a tiny Qwen3-VL as an ordinary Hugging Face folder.

    It starts as the shipped base, which can describe pictures of the world and nothing else.
    """
    _check_empty(out)
    if untrained:
        from thinkedit.data.looking import vocabulary
        from thinkedit.learner.policy.tiny import build_tiny

        build_tiny(out, vocabulary(), seed)
    else:
        from thinkedit.learner.policy.shipped import copy_base

        copy_base(out)
    typer.echo(f"wrote {out}")


def pretrain_base(
    out: Out,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 3800,
    start: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Go on from this policy, not from random weights."),
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop after this many minutes.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples a step.")] = 32,
    seed: Annotated[int, typer.Option(help="Of the weights and of the samples.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    device: Annotated[str, typer.Option(help="Where to train: cpu, cuda.")] = "cpu",
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that make samples; 0: none of their own.")
    ] = 0,
    held_out: Annotated[int, typer.Option(min=1, help="Samples to measure on.")] = 256,
) -> None:
    """Teach an untrained tiny policy to look, and write it with a model card."""
    if device not in DEVICES:
        raise UnknownName("device", device, DEVICES)
    _check_empty(out)
    import itertools
    from collections.abc import Iterator

    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: torch sees no GPU here (`thinkedit doctor` says more)")
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from transformers import Qwen3VLForConditionalGeneration, Qwen3VLProcessor

    from thinkedit.data import looking
    from thinkedit.learner.policy import pretrain, tiny
    from thinkedit.learner.policy.samples import LookSample
    from thinkedit.learner.policy.tokenizer import build_tokenizer

    torch.set_num_threads(threads)
    config = pretrain.PretrainConfig(
        steps=steps,
        minutes=minutes,
        batch_size=batch_size,
        cell_kinds=looking.KINDS,
        held_out=held_out,
        seed=seed,
        device=device,
        workers=workers,
    )
    if start is None:
        tokenizer = build_tokenizer(looking.vocabulary())
        model, processor = tiny.build_model(tokenizer, seed), tiny.build_processor(tokenizer)
    else:
        model = Qwen3VLForConditionalGeneration.from_pretrained(start)
        processor = Qwen3VLProcessor.from_pretrained(start)

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        bar = progress.add_task("pretraining", total=1.0)

        def show(row: dict[str, float]) -> None:
            share = max(row["step"] / steps, row["seconds"] / (60 * minutes) if minutes else 0.0)
            note = f"step {row['step']:.0f} loss {row['loss']:.3f} cells {row['cell_loss']:.3f}"
            progress.update(bar, completed=share, description=note)
            if row["step"] % config.log_every == 0 and not progress.console.is_terminal:
                typer.echo(f"{note} {row['seconds']:.0f} s")

        def samples(k: int) -> Iterator[LookSample]:
            return looking.looking(seed, f"train/{k}")

        log = pretrain.pretrain(model, processor, samples, config, show)
        progress.update(bar, completed=1.0, description="measuring")
        tests = (
            looking.reading_test(),
            looking.grounding_test(),
            looking.comparing_test(),
            looking.imagining_test(),
        )
        held = (list(itertools.islice(test, held_out)) for test in tests)
        log.reading = pretrain.measure(model, processor, *held)
    tiny.save(model, processor, out)
    options = {"--steps": steps, "--batch-size": batch_size, "--seed": seed, "--device": device}
    options |= {"--workers": workers} if workers else {}
    options |= {"--minutes": minutes} if minutes else {}
    options |= {"--start": "START"} if start else {}
    command = " ".join(
        ["thinkedit pretrain-base OUT", *(f"{name} {value}" for name, value in options.items())]
    )
    pretrain.write_card(out, model, config, log, command)
    typer.echo(
        f"wrote {out}: reads the first picture {log.reading.first:.3f}, the second "
        f"{log.reading.second:.3f}, finds {log.reading.grounding:.3f}, "
        f"compares {log.reading.comparing:.3f}, imagines {log.reading.imagining:.3f}, "
        f"in {log.seconds:.0f} s"
    )


def _check_empty(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise typer.BadParameter(f"{out} exists and is not an empty folder")
