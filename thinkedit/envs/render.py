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
_GAP, _CAPTION_LINES, _LINE = 12, 6, 16
_BACKGROUND, _INK, _PAPER = (250, 250, 248), (40, 40, 40), (228, 228, 224)


@dataclass(frozen=True, slots=True, eq=False)
class _Tile:
    title: str
    image: RGB | None
    caption: str


def contact_sheet(session: EditSession) -> RGB:
    """The episode so far, uint8 (H, W, 3); all frames of a session's config have the same size."""
    observed = session.episode(uid="render")
    tiles = [_Tile("source", observed.task.source, observed.task.instruction)]
    tiles.append(_Tile(f"edit 0{_marks(observed.first)}", observed.first_edit, "prompt: the instruction"))
    tiles += [_Tile(_title(turn), turn.edited, _caption(turn)) for turn in observed.turns]
    empty = session.config.max_turns + 2 - len(tiles)
    return _draw([*tiles, *[_Tile("", None, "")] * empty])


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


def _draw(tiles: Sequence[_Tile]) -> RGB:
    height = _GAP * 2 + _LINE + TILE + _CAPTION_LINES * _LINE
    sheet = Image.new("RGB", (_GAP + len(tiles) * (TILE + _GAP), height), _BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for place, tile in enumerate(tiles):
        left, top = _GAP + place * (TILE + _GAP), _GAP
        draw.text((left, top), tile.title, fill=_INK, font=font)
        top += _LINE
        draw.rectangle((left, top, left + TILE - 1, top + TILE - 1), fill=_PAPER)
        if tile.image is not None:
            picture = _fit(tile.image)
            sheet.paste(picture, (left + (TILE - picture.width) // 2, top + (TILE - picture.height) // 2))
        lines = textwrap.wrap(tile.caption, width=36, max_lines=_CAPTION_LINES, placeholder=" …")
        for number, line in enumerate(lines):
            draw.text((left, top + TILE + number * _LINE), line, fill=_INK, font=font)
    return np.asarray(sheet).copy()


def _fit(image: RGB) -> Image.Image:
    picture = Image.fromarray(image)
    factor = min(TILE / picture.width, TILE / picture.height)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    # Small pictures stay crisp; large ones are smoothed.
    return picture.resize(size, Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS)
