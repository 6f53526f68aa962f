"""How large a picture is when a policy sees it: the same in rollouts and in SFT."""

from __future__ import annotations

import math

from PIL import Image


def within_pixels(picture: Image.Image, least: int, most: int) -> Image.Image:
    """The picture scaled so that its area lies within [least, most] pixels, its aspect kept."""
    area = picture.width * picture.height
    target = min(max(area, least), most)
    if target == area:
        return picture
    factor = math.sqrt(target / area)
    round_side = math.floor if target < area else math.ceil
    size = (max(1, round_side(picture.width * factor)), max(1, round_side(picture.height * factor)))
    return picture.resize(size, Image.Resampling.BICUBIC)
