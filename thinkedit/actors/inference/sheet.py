"""A run as one picture: the source and every edit, with prompts, critiques and marks."""

from __future__ import annotations

import textwrap

from thinkedit.actors.inference.records import Attempt, EditResult
from thinkedit.envs.render import Tile, draw_tiles
from thinkedit.types import RGB, Scores

_WIDTH, _COLUMNS, _LINES = 320, 4, 12


def contact_sheet(result: EditResult) -> RGB:
    """uint8 (H, W, 3); the chosen edit is framed."""
    tiles = [Tile("source", result.source, result.instruction)]
    for attempt in result.attempts:
        chosen = attempt.index == result.chosen
        tiles.append(Tile(_title(attempt, chosen), attempt.image, _caption(attempt), marked=chosen))
    height, width = result.source.shape[:2]
    box = (_WIDTH, min(round(_WIDTH * height / width), 2 * _WIDTH) or 1)
    lines = max(len(textwrap.wrap(tile.caption, 46)) + 2 for tile in tiles)
    return draw_tiles(tiles, box=box, columns=_COLUMNS, lines=min(lines, _LINES))


def _title(attempt: Attempt, chosen: bool) -> str:
    parts = [f"edit {attempt.index}"]
    if attempt.thought is not None and attempt.thought.predicted is not None:
        parts.append(f"thinker {_marks(attempt.thought.predicted)}")
    if attempt.verdict is not None:
        parts.append(f"judge {_marks(attempt.verdict.scores)}")
    return "   ".join([*parts, "chosen"] if chosen else parts)


def _caption(attempt: Attempt) -> str:
    lines = [f"prompt: {attempt.prompt}"]
    if attempt.thought is not None:
        verdict = "" if attempt.thought.end is None else f" ({attempt.thought.end.value})"
        lines.append(f"critique{verdict}: {attempt.thought.reason}")
    return "\n".join(lines)


def _marks(scores: Scores) -> str:
    return f"{scores.semantic:.3g}/{scores.quality:.3g}"
