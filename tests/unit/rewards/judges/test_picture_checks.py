"""What pixels alone tell: unchanged edits, collages of the source, writing that was not there."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from thinkedit.envs.editors.procedural import ProceduralEditor
from thinkedit.envs.world.tasks import WorldTasks
from thinkedit.rewards.judges.picture_checks import largest_change, new_text, tiled
from thinkedit.types import RGB

SIDE = 256


def scene(seed: int = 0) -> RGB:
    """A soft landscape of blots, with shading and grain, like a photograph out of focus."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (SIDE, SIDE), (90, 130, 170))
    draw = ImageDraw.Draw(image)
    for _ in range(14):
        x, y, r = (int(rng.integers(low, high)) for low, high in ((0, SIDE), (0, SIDE), (20, 70)))
        draw.ellipse((x - r, y - r, x + r, y + r), fill=tuple(rng.integers(30, 200, 3).tolist()))
    soft = np.asarray(image.filter(ImageFilter.GaussianBlur(4))).astype(float)
    return np.clip(soft + rng.normal(0, 4, soft.shape), 0, 255).astype(np.uint8)


def written(image: RGB, text: str, height: float, fill: str = "white") -> RGB:
    picture = Image.fromarray(image)
    ImageDraw.Draw(picture).text((12, 60), text, font=ImageFont.load_default(height), fill=fill)
    return np.array(picture)


def as_jpeg(image: RGB, quality: int) -> RGB:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0)
    return np.array(Image.open(buffer))


def test_an_edit_of_one_block_changes_as_much_as_one_of_the_whole_picture() -> None:
    source = scene()
    spot, everywhere = source.copy(), source // 2
    spot[80:88, 160:168] //= 2
    assert largest_change(source, source) == 0
    assert largest_change(source, spot) > 20
    assert largest_change(source, everywhere) > 20
    assert largest_change(source, as_jpeg(source, 95)) < 4


@pytest.mark.parametrize("size", [(96, 96), (37, 61), (1, 1), (8, 200)])
def test_change_is_a_mean_over_blocks_cut_at_the_edge_too(size: tuple[int, int]) -> None:
    source = np.zeros((*size, 3), np.uint8)
    edited = source.copy()
    edited[-1, -1] = 255
    corner = ((size[0] - 1) % 8 + 1) * ((size[1] - 1) % 8 + 1)
    assert largest_change(source, edited) == pytest.approx(255 / corner)


@pytest.mark.parametrize("grid", [(1, 2), (2, 1), (2, 2), (3, 3)])
def test_a_collage_that_shows_the_source_is_seen(grid: tuple[int, int]) -> None:
    source, (rows, columns) = scene(), grid
    cell = np.asarray(Image.fromarray(source).resize((SIDE // columns, SIDE // rows)))
    other = np.asarray(Image.fromarray(scene(1)).resize((SIDE // columns, SIDE // rows)))
    cells = [[cell if (r, c) == (0, 0) else other for c in range(columns)] for r in range(rows)]
    edited = np.zeros_like(source)
    pasted = np.vstack([np.hstack(row) for row in cells])
    edited[: pasted.shape[0], : pasted.shape[1]] = pasted
    assert tiled(source, edited) == grid


def test_honest_edits_and_plain_pictures_are_no_collage() -> None:
    source = scene()
    edited = source.copy()
    edited[100:150, 100:150] = (250, 10, 10)
    assert tiled(source, edited) is None
    assert tiled(source, scene(1)) is None
    plain = np.full((SIDE, SIDE, 3), 128, np.uint8)
    assert tiled(plain, plain) is None


@pytest.mark.parametrize("height", [14, 20, 32])
@pytest.mark.parametrize("fill", ["white", "black"])
def test_a_written_line_is_found_where_it_stands(height: int, fill: str) -> None:
    source = scene()
    box = new_text(source, written(source, "PERFECT EDIT", height, fill))
    assert box is not None
    left, top, right, bottom = box
    assert 0 <= left < right <= SIDE
    assert 50 < top < bottom < 60 + 2 * height


def test_writing_that_the_source_has_already_is_no_news() -> None:
    source = written(scene(), "PERFECT EDIT", 20)
    edited = source.copy()
    edited[150:200, 100:150] = (250, 10, 10)
    assert new_text(source, edited) is None


@pytest.mark.parametrize("seed", range(5))
def test_edits_without_writing_are_not_taken_for_it(seed: int) -> None:
    source = scene(seed)
    grown = source.copy()
    grown[60:120, 60:140] = scene(seed + 10)[60:120, 60:140]
    posts = source.copy()
    for k in range(9):
        posts[100:140, 10 + 25 * k : 20 + 25 * k] = 255
    for edited in (source, grown, posts, scene(seed + 20), as_jpeg(source, 50), 255 - source):
        assert new_text(source, edited) is None


def test_the_worlds_edits_are_neither_collages_nor_writing() -> None:
    tasks, editor = WorldTasks(), ProceduralEditor()
    for index in range(40):
        task = tasks.task("val", index)
        edited = editor.edit(task.source, task.instruction, seed=index)
        assert tiled(task.source, edited) is None
        assert new_text(task.source, edited) is None
