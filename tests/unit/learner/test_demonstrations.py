"""Demonstrations by reference are the same samples as those with the pictures inside."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from thinkedit.errors import DataError

SHIPPED = Path(__file__).parents[3] / "thinkedit" / "learner" / "policy" / "base"


def rows(
    path: Path, images: list[dict[str, object]], least: int = 9216, most: int = 9216, until: str | None = None
):
    from verl.utils.tokenizer import hf_processor, hf_tokenizer

    from thinkedit.learner.demonstrations import DemonstrationSet

    messages = [
        {"role": "user", "content": "<image><image>instruction: paint it"},
        {"role": "assistant", "content": "<think>a red star</think>"},
    ]
    pq.write_table(pa.Table.from_pylist([{"messages": messages, "images": images}]), path)
    options = {"max_length": 2000, "min_pixels": least, "max_pixels": most, "until": until}
    config = OmegaConf.create(options)
    return DemonstrationSet(str(path), hf_tokenizer(str(SHIPPED)), config, hf_processor(str(SHIPPED)))


def files(folder: Path, size: tuple[int, int] = (96, 96)) -> list[Path]:
    paths = [folder / f"{n}.png" for n in range(2)]
    for n, path in enumerate(paths):
        pixels = np.random.default_rng(n).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return paths


def test_pictures_by_reference_are_the_same_sample(tmp_path: Path) -> None:
    paths = files(tmp_path)
    inside = rows(tmp_path / "a.parquet", [{"bytes": path.read_bytes()} for path in paths])[0]
    referred = rows(tmp_path / "b.parquet", [{"image": str(path)} for path in paths])[0]
    assert torch.equal(inside["input_ids"], referred["input_ids"])
    pixels = [sample["multi_modal_inputs"]["pixel_values"] for sample in (inside, referred)]
    assert torch.equal(*pixels)


def test_pictures_are_brought_within_the_policys_bounds_as_in_a_rollout(tmp_path: Path) -> None:
    paths = files(tmp_path, size=(384, 192))  # 73,728 pixels
    sample = rows(tmp_path / "a.parquet", [{"image": str(path)} for path in paths], most=20_000)[0]
    for _, high, wide in sample["multi_modal_inputs"]["image_grid_thw"].tolist():
        assert high * wide * 16 * 16 <= 20_000 * 1.2  # patches of 16 x 16, sides rounded
        assert wide / high == pytest.approx(2, rel=0.25)


def test_a_reply_may_be_learnt_up_to_a_text_and_no_further(tmp_path: Path) -> None:
    images: list[dict[str, object]] = [{"bytes": path.read_bytes()} for path in files(tmp_path)]
    whole = rows(tmp_path / "a.parquet", images)
    part = rows(tmp_path / "b.parquet", images, until="a red")
    decode = part._tokenizer.decode
    assert torch.equal(whole[0]["input_ids"], part[0]["input_ids"])
    learnt = [decode(s["input_ids"][s["loss_mask"].bool()]) for s in (whole[0], part[0])]
    assert learnt == ["<think>a red star</think><|im_end|>", "<think>a red"]
    with pytest.raises(DataError, match=r"no '</score>' to learn until: '<think>a red star"):
        rows(tmp_path / "c.parquet", images, until="</score>")[0]


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    images = [{"image": str(tmp_path / "absent.png")}] * 2
    with pytest.raises(DataError, match=r"absent\.png"):
        rows(tmp_path / "a.parquet", images)[0]
