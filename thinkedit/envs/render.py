"""Draws an episode as one picture: the source and every edit, with prompts and marks."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from thinkedit.envs.session import EditSession
from thinkedit.types import RGB, Outcome, Turn, Verdict

TILE = 224  # side of the square that a picture is fitted into
_GAP, _LINE = 12, 16
_BACKGROUND, _INK, _PAPER, _MARK = (250, 250, 248), (40, 40, 40), (228, 228, 224), (91, 91, 214)


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """A picture with a title above it and a few lines of text below; `marked` draws a frame around it."""

    title: str
    image: RGB | None
    caption: str
    marked: bool = False


def contact_sheet(session: EditSession) -> RGB:
    """The episode so far, uint8 (H, W, 3); all frames of a session's config have the same size."""
    observed = session.episode(uid="render")
    tiles = [Tile("source", observed.task.source, observed.task.instruction)]
    tiles.append(Tile(f"edit 0{_marks(observed.first)}", observed.first_edit, "prompt: the instruction"))
    tiles += [Tile(_title(turn), turn.edited, _caption(turn)) for turn in observed.turns]
    empty = session.config.max_turns + 2 - len(tiles)
    return draw_tiles([*tiles, *[Tile("", None, "")] * empty])


def _title(turn: Turn) -> str:
    name = f"turn {turn.index + 1}"
    if turn.outcome is not Outcome.OK:
        return f"{name}: {turn.outcome.value}"
    return f"{name}: kept" if turn.kept else f"{name}{_marks(turn.after)}"


def _caption(turn: Turn) -> str:
    if turn.critique is None:
        return turn.error.value if turn.error else turn.detail
    said = turn.critique.scores
    return f"said {said.semantic:g}/{said.quality:g}: {turn.critique.answer}"


def _marks(verdict: Verdict | None) -> str:
    return "" if verdict is None else f"  {verdict.scores.semantic:.1f}/{verdict.scores.quality:.1f}"


def draw_tiles(
    tiles: Sequence[Tile], *, box: tuple[int, int] = (TILE, TILE), columns: int | None = None, lines: int = 6
) -> RGB:
    """Tiles side by side on one sheet, uint8 (H, W, 3).

    Args:
        box: width and height that a picture is fitted into, in pixels.
        columns: tiles in a row; None: all.
        lines: of a caption, at most; the rest of it is left out.
    """
    columns = min(columns or len(tiles), len(tiles))
    (width, height), pad = box, _GAP // 2
    pitch = (width + _GAP, _LINE + height + pad + lines * _LINE + _GAP)
    size = (_GAP + columns * pitch[0], _GAP + -(-len(tiles) // columns) * pitch[1])
    sheet = Image.new("RGB", size, _BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for place, tile in enumerate(tiles):
        row, column = divmod(place, columns)
        left, top = _GAP + column * pitch[0], pad + row * pitch[1]
        draw.text((left, top), tile.title, fill=_INK, font=font)
        top += _LINE + pad // 2
        draw.rectangle((left, top, left + width - 1, top + height - 1), fill=_PAPER)
        if tile.image is not None:
            picture = _fit(tile.image, box)
            sheet.paste(picture, (left + (width - picture.width) // 2, top + (height - picture.height) // 2))
        if tile.marked:
            draw.rectangle((left - 3, top - 3, left + width + 2, top + height + 2), outline=_MARK, width=3)
        for number, line in enumerate(_wrapped(tile.caption, width, lines)):
            draw.text((left, top + height + pad // 2 + number * _LINE), line, fill=_INK, font=font)
    return np.asarray(sheet).copy()


def _wrapped(text: str, width: int, lines: int) -> list[str]:
    """At most `lines` lines of `width` pixels, roughly; a line break in the text stays one."""
    room = max(8, width * 36 // TILE)  # characters
    broken = [line for part in text.splitlines() for line in textwrap.wrap(part, room) or [""]]
    return broken if len(broken) <= lines else [*broken[: lines - 1], broken[lines - 1][: room - 2] + " …"]


def _fit(image: RGB, box: tuple[int, int]) -> Image.Image:
    picture = Image.fromarray(image)
    factor = min(box[0] / picture.width, box[1] / picture.height)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    # Small pictures stay crisp; large ones are smoothed.
    return picture.resize(size, Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS)
