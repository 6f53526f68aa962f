"""SFT rows as tokens: the very prompt that a rollout would build, then the expert's reply.

verl loads the class through `data.custom_cls`. Its own dataset renders each message three times and
tokenises prompt and reply in another way than its rollouts do; this one prepares a whole batch in
one call of the processor, and its prompts equal those of the agent loop token by token.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset as ParquetRows
from PIL import Image
from torch.utils.data import Dataset

from thinkedit.errors import DataError
from thinkedit.pixels import within_pixels

PLACEHOLDER = "<image>"
Sample = dict[str, Any]


class DemonstrationSet(Dataset[Sample]):
    """Rows of `messages` (one user, one assistant) and `images`, in order of `<image>`.

    An image is {bytes} or, by reference, {image: path}.

    A sample: input_ids [L], loss_mask [L] (1 on the reply and its end token, or, with `until` in the
    config, on the reply up to and with the first such text), position_ids [4, L]
    (text position, then the three rotary axes; [L] for models without them) and multi_modal_inputs.
    """

    def __init__(
        self, parquet_files: Any, tokenizer: Any, config: Any, processor: Any, max_samples: int = -1
    ) -> None:
        if processor is None:
            raise DataError("demonstrations hold pictures, and the policy has no processor")
        files = [parquet_files] if isinstance(parquet_files, str) else [str(file) for file in parquet_files]
        cache = Path(files[0]).parent / ".arrow"  # memory-mapped, so that any size of data fits
        rows = ParquetRows.from_parquet(files, cache_dir=str(cache))
        self._rows = rows.select(range(max_samples)) if 0 < max_samples < len(rows) else rows
        self._tokenizer, self._processor = tokenizer, processor
        self._max_length = int(config.max_length)
        self._pixels = int(config.min_pixels), int(config.max_pixels)
        self._until = config.get("until")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[Sample]:
        """A batch at once; torch's loader asks for it by this name."""
        rows = [self._rows[int(index)] for index in indices]
        prompts, replies, images = zip(*(self._read(row) for row in rows), strict=True)
        encoded = self._processor(text=list(prompts), images=[i for group in images for i in group])
        coded = self._tokenizer(list(replies), add_special_tokens=False, return_offsets_mapping=True)
        counted = map(self._counted, replies, coded["offset_mapping"])
        grids = torch.as_tensor(encoded["image_grid_thw"])
        pixels = torch.as_tensor(encoded["pixel_values"])
        grids_of = torch.split(grids, [len(group) for group in images])
        pixels_of = torch.split(pixels, [int(grid.prod(-1).sum()) for grid in grids_of])
        return [
            self._sample(prompt, reply, count, pixel, grid)
            for prompt, reply, count, pixel, grid in zip(
                encoded["input_ids"], coded["input_ids"], counted, pixels_of, grids_of, strict=True
            )
        ]

    def _counted(self, reply: str, places: list[tuple[int, int]]) -> int:
        """How many of a reply's tokens, each at (first, end) in it, are learnt."""
        if self._until is None:
            return len(places)
        before, found, _ = reply.partition(self._until)
        if not found:
            raise DataError(f"a demonstration's reply has no {self._until!r} to learn until: {reply[:80]!r}")
        return sum(first < len(before + found) for first, _ in places)

    def _read(self, row: Sample) -> tuple[str, str, list[Image.Image]]:
        roles = [message["role"] for message in row["messages"]]
        if roles != ["user", "assistant"]:
            raise DataError(f"a demonstration has one user and one assistant message, not {roles}")
        asked, answered = (message["content"] for message in row["messages"])
        pieces = asked.split(PLACEHOLDER)
        images = [within_pixels(_opened(image), *self._pixels) for image in row["images"]]
        if len(pieces) - 1 != len(images):
            raise DataError(f"{len(pieces) - 1} {PLACEHOLDER} placeholders for {len(images)} images")
        content: list[dict[str, str]] = []
        for place, piece in enumerate(pieces):
            content += [{"type": "image"}] if place else []
            content += [{"type": "text", "text": piece}] if piece else []
        prompt = self._processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        return prompt, answered + self._tokenizer.eos_token, images

    def _sample(
        self, prompt: list[int], reply: list[int], count: int, pixels: torch.Tensor, grid: torch.Tensor
    ) -> Sample:
        ids = torch.tensor([*prompt, *reply])
        if len(ids) > self._max_length:
            raise DataError(
                f"a demonstration of {len(ids)} tokens is longer than policy.max_prompt_tokens + "
                f"policy.max_reply_tokens ({self._max_length})"
            )
        mask = torch.zeros_like(ids)
        mask[len(prompt) : len(prompt) + count] = 1
        return {
            "input_ids": ids,
            "loss_mask": mask,
            "position_ids": self._positions(ids, grid),
            "multi_modal_inputs": {"pixel_values": pixels, "image_grid_thw": grid},
        }

    def _positions(self, ids: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        text = torch.arange(len(ids))
        if not hasattr(self._processor, "get_rope_index"):  # verl binds the model's own to the processor
            return text
        axes, _ = self._processor.get_rope_index(
            input_ids=ids[None],
            image_grid_thw=grid,
            attention_mask=torch.ones_like(ids)[None],
            mm_token_type_ids=(ids == self._processor.image_token_id).long()[None],
        )
        return torch.cat([text[None], axes[:, 0]])


def _opened(image: Sample) -> Image.Image:
    held = image.get("bytes") or image.get("image")
    if not isinstance(held, bytes | str):
        raise DataError(f"an image of a demonstration is {{bytes}} or {{image: path}}, not {image!r}")
    try:
        with Image.open(held if isinstance(held, str) else io.BytesIO(held)) as opened:
            return opened.convert("RGB")
    except OSError as error:
        raise DataError(f"an image of a demonstration can't be read: {error}") from error
