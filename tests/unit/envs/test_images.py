"""Any picture file becomes upright 8-bit RGB, or a typed error."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from thinkedit.envs.images import read_rgb, to_rgb
from thinkedit.errors import DataError

RED, WHITE = [255, 0, 0], [255, 255, 255]


def saved(image: Image.Image, form: str = "PNG", **options: Any) -> io.BytesIO:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    buffer.seek(0)
    return buffer


def test_plain_rgb_is_unchanged() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.array_equal(read_rgb(saved(Image.fromarray(pixels))), pixels)


@pytest.mark.parametrize(
    ("image", "options"),
    [
        (Image.new("RGBA", (2, 1), (0, 0, 0, 0)), {}),
        (Image.new("LA", (2, 1), (0, 0)), {}),
        (Image.new("RGB", (2, 1), (9, 9, 9)), {"transparency": (9, 9, 9)}),
        (Image.new("L", (2, 1), 9), {"transparency": 9}),
        (Image.new("P", (2, 1), 0), {"transparency": 0}),
    ],
    ids=["RGBA", "LA", "RGB-key", "L-key", "P-key"],
)
def test_what_is_transparent_shows_white(image: Image.Image, options: dict[str, Any]) -> None:
    assert read_rgb(saved(image, **options)).tolist() == [[WHITE, WHITE]]


def test_half_transparent_is_mixed_with_white() -> None:
    (pixel,) = read_rgb(saved(Image.new("RGBA", (1, 1), (255, 0, 0, 128))))[0]
    assert pixel.tolist() == [255, 127, 127]


def test_palettes_are_looked_up() -> None:
    image = Image.new("P", (1, 1), 1)
    image.putpalette([0, 0, 0, *RED])
    assert read_rgb(saved(image)).tolist() == [[RED]]


@pytest.mark.parametrize(("deep", "shallow"), [(0, 0), (257, 1), (32896, 128), (65535, 255), (300, 1)])
def test_sixteen_bits_are_scaled_and_not_clipped(deep: int, shallow: int) -> None:
    image = Image.fromarray(np.full((1, 2), deep, np.uint16))
    assert read_rgb(saved(image)).tolist() == [[[shallow] * 3] * 2]
    assert to_rgb(image.convert("I")).tolist() == [[[shallow] * 3] * 2]


def test_exif_rotation_is_carried_out() -> None:
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[0, 0] = RED
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side: turn by 90 degrees clockwise
    upright = read_rgb(saved(Image.fromarray(pixels), exif=exif))
    assert upright.shape == (3, 2, 3)
    assert upright[0, 1].tolist() == RED


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "YCbCr", "HSV"])
def test_other_modes_become_rgb(mode: str) -> None:
    image = to_rgb(Image.new("RGB", (3, 2), "white").convert(mode))
    assert image.dtype == np.uint8
    assert image.tolist() == [[WHITE] * 3] * 2


@pytest.mark.parametrize(
    "image", [Image.new("F", (1, 1)), Image.new("I", (1, 1), 70000), Image.new("I", (1, 1), -1)]
)
def test_values_without_a_range_are_refused(image: Image.Image) -> None:
    with pytest.raises(ValueError, match="range"):
        to_rgb(image)
    with pytest.raises(DataError):
        read_rgb(saved(image, "TIFF"))


def test_files_that_are_no_pictures_are_data_errors_with_their_name(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(saved(Image.new("RGB", (64, 64), "red")).getvalue()[:60])
    text = tmp_path / "text.png"
    text.write_text("hello")
    for path in (damaged, text, tmp_path / "missing.png"):
        with pytest.raises(DataError, match=path.name):
            read_rgb(path)


def test_a_picture_too_large_to_decode_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(DataError, match="not a readable picture"):
        read_rgb(saved(Image.new("RGB", (5, 5))))
