"""The model card of a trained editor, and its contact sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from thinkedit.actors.small_diffusion.figures import Edit, Figures, by, swayed
from thinkedit.actors.small_diffusion.pipeline import STEPS, SmallDiffusionPipeline
from thinkedit.actors.small_diffusion.training import TrainConfig, TrainLog
from thinkedit.envs.render import Tile, draw_tiles
from thinkedit.envs.world.sprites import NOISY_RESIDUAL, SIDE

SHEET = "contact_sheet.png"

_SHOWN = 20
_LOG_ROWS = 20


def write_card(
    out: Path,
    pipeline: SmallDiffusionPipeline,
    config: TrainConfig,
    log: TrainLog,
    command: str,
    *,
    edits: Mapping[str, Sequence[Edit]],
    reseeded: Sequence[Edit],
    edit_s: float,
) -> None:
    """README.md and the contact sheet in the saved folder: what the editor is, and how well it edits.

    Args:
        edits: of the same tasks, by how the editor was told; first by the tasks' own instructions.
        reseeded: those first ones once more, under other seeds.
        edit_s: CPU seconds an edit took.
    """
    given, *_, fullest = edits
    asked = edits[given]
    contact_sheet(asked).save(out / SHEET, optimize=True)
    parameters = sum(parameter.numel() for parameter in pipeline.network.parameters())
    whole = Figures.of(asked)
    lines = [
        "---",
        "license: apache-2.0",
        "library_name: diffusers",
        "pipeline_tag: image-to-image",
        "---",
        "# thinkedit small diffusion editor",
        "",
        "Edits 96 x 96 pictures of thinkedit's world as told. It learned from exact edits only, so its",
        "faults are its own: soft edges, ghosts, an edit of the wrong object, a misread phrase.",
        "",
        f"- made by `{command}`",
        f"- parameters: {parameters:,}; trained in float32, stored in float16",
        f"- sampler: flow matching, {STEPS} Euler steps, noise levels shifted by "
        f"{pipeline.scheduler.config.shift:g}; {1000 * edit_s:.0f} ms of one CPU core an edit",
        f"- training: {log.steps} steps of {config.batch_size} samples in {log.seconds:.0f} s,"
        f" seed {config.seed}; scenes of the splits sft and train",
        "",
        f"Below are edits of {whole.count} tasks of the split test, judged against the tasks' own",
        "instructions by the world's exact judge. Done: the goal is met exactly. Perfect: both scores are",
        "10. O is the root of semantic times quality. A picture left alone has semantic 0.",
        "",
        *_table("told", {told: Figures.of(made) for told, made in edits.items()}),
        "",
        *_table(f"by reference, {given}", by("reference", asked)),
        "",
        *_table(f"by operation, {given}", by("operation", asked)),
        "",
        *_table(f"by operation, {fullest}", by("operation", edits[fullest])),
        "",
        f"Another seed changes the scores of {swayed(asked, reseeded):.3f} of the tasks as given.",
        "",
        f"How the world reads the pictures: {whole.exact:.3f} of them are pixel for pixel one of its own",
        "drawings (the rest differ in the edges and shades of what was drawn, and are read as the nearest",
        f"drawing), {whole.residual:.2f} is the mean difference from the drawing read (0 to 255; from",
        f"{NOISY_RESIDUAL:g} on a picture counts as noisy), and noisy are {whole.noisy:.3f}.",
        "",
        f"The first {_SHOWN} tasks, told as given: source and edit side by side; perfect ones",
        "are framed.",
        "",
        f"![Contact sheet]({SHEET})",
        "",
        "| step | seconds | loss | cell loss (nats) |",
        "|---|---|---|---|",
        *(
            f"| {row['step']:.0f} | {row['seconds']:.0f} | {row['loss']:.4f} | {row['cell_loss']:.4f} |"
            for row in log.rows[:: -max(1, len(log.rows) // _LOG_ROWS)][::-1]
        ),
        "",
    ]
    (out / "README.md").write_text("\n".join(lines), encoding="utf-8")


def contact_sheet(edits: Sequence[Edit]) -> Image.Image:
    """The first edits beside their sources, marks above and prompts below; perfect ones are framed."""
    tiles = [
        Tile(
            title=f"semantic {edit.verdict.scores.semantic:g}, quality {edit.verdict.scores.quality:g}",
            image=np.hstack([edit.trial.source, edit.edited]),
            caption=edit.trial.prompt,
            marked=edit.perfect,
        )
        for edit in edits[:_SHOWN]
    ]
    return Image.fromarray(draw_tiles(tiles, box=(2 * SIDE, SIDE), columns=4, lines=2))


def _table(title: str, groups: Mapping[str, Figures]) -> list[str]:
    return [
        f"| {title} | tasks | done | perfect | semantic | quality | O |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {name.replace('_', ' ')} | {f.count} | {f.done:.3f} | {f.perfect:.3f} | {f.semantic:.2f} "
            f"| {f.quality:.2f} | {f.overall:.2f} |"
            for name, f in groups.items()
        ),
    ]
