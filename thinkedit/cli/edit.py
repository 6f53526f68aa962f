"""`thinkedit edit`: think-while-edit on one's own picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thinkedit.cli import options

if TYPE_CHECKING:
    from thinkedit.actors.inference import EditResult
    from thinkedit.configs.schema import Config
    from thinkedit.types import RGB


def edit(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="The picture to edit.")],
    instruction: Annotated[str, typer.Argument(metavar="INSTRUCTION", help="What to change in it.")],
    overrides: options.Overrides = None,
    config: options.InferenceConfig = None,
    thinker: options.Thinker = None,
    model: options.Model = None,
    mode: options.Mode = None,
    turns: Annotated[
        int | None, typer.Option("--turns", "-n", help="Critiques at most.", show_default="episode.max_turns")
    ] = None,
    accept_at: options.AcceptAt = None,
    select: Annotated[
        str | None,
        typer.Option(help="The result: last, best_predicted or best_judge.", show_default="inference.select"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of every edit.", show_default="seed")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="A new or empty folder.", show_default="runs/edits/IMAGE-NUMBER"),
    ] = None,
) -> None:
    """Edit a picture with a thinker that looks at each result and words the next prompt.

    Writes every edit as it is made, then result.png, sheet.png and edit.json. Ctrl-C ends it with
    what is there. See docs/editing.md.
    """
    import asyncio

    from thinkedit.actors.inference.folder import new_folder
    from thinkedit.envs.images import read_rgb

    loaded = options.for_inference(
        config,
        overrides,
        thinker=thinker,
        model=model,
        mode=mode,
        accept_at=accept_at,
        more={"inference.select": select, "episode.max_turns": turns, "seed": seed},
    )
    source = read_rgb(image)
    folder = new_folder(out or _free(Path("runs", "edits"), image.stem))
    result = asyncio.run(_edit(loaded, source, instruction, folder))
    typer.echo(f"wrote {folder}")
    if result.stop.failed:
        raise typer.Exit(1)


async def _edit(config: Config, source: RGB, instruction: str, folder: Path) -> EditResult:
    import asyncio
    import signal

    from thinkedit.actors.inference import Event, open_thinking_editor
    from thinkedit.actors.inference.folder import recorder
    from thinkedit.cli.show import EventPrinter

    stop, loop, record = asyncio.Event(), asyncio.get_running_loop(), recorder(folder)

    with EventPrinter() as printer:

        def tell(event: Event) -> None:
            record(event)
            printer(event)

        def interrupted() -> None:
            loop.remove_signal_handler(signal.SIGINT)  # a second Ctrl-C waits for nothing
            stop.set()

        async with open_thinking_editor(config) as thinking:
            loop.add_signal_handler(signal.SIGINT, interrupted)
            return await thinking.edit(source, instruction, tell=tell, stop=stop)


def _free(folder: Path, stem: str) -> Path:
    """A folder in `folder` that isn't there yet."""
    number = 1
    while (folder / f"{stem}-{number}").exists():
        number += 1
    return folder / f"{stem}-{number}"
