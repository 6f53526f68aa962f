"""Packs samples into the tensors that Qwen3-VL takes, many times faster than its processor does.

All pictures have one size and stand at the head of the prompt, so position ids, grid and patch
order are the same for every row. `tests/unit/learner/test_policy_batches.py` holds it to the
processor's own output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from transformers import Qwen3VLForConditionalGeneration, Qwen3VLProcessor

from thinkedit.learner.policy import tokenizer as tokens
from thinkedit.learner.policy.samples import LookSample
from thinkedit.learner.policy.tiny import MERGE, PATCH
from thinkedit.types import RGB

IGNORE = -100


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """B rows of T tokens with P pictures a row.

    tokens: input_ids, attention_mask and mm_token_type_ids (B, T), image_grid_thw (B * P, 3) and, in
        training, position_ids (3, B, T).
    pictures: uint8 (B * P, height, width, 3), cut to patches as late as possible: a batch that comes
        from another process or goes to a GPU is an eighth as large so.
    labels: (B, T) token ids, `IGNORE` where nothing is to be learned.
    cells: (B * P, visual tokens a picture) kinds for the auxiliary loss.
    """

    tokens: dict[str, torch.Tensor]
    pictures: torch.Tensor
    labels: torch.Tensor
    cells: torch.Tensor

    @property
    def inputs(self) -> dict[str, torch.Tensor]:
        """Keyword arguments of the model's forward."""
        return {**self.tokens, "pixel_values": patches(self.pictures)}

    def to(self, device: torch.device) -> Self:
        """The same on another device."""
        tokens = {name: tensor.to(device, non_blocking=True) for name, tensor in self.tokens.items()}
        rest = (tensor.to(device, non_blocking=True) for tensor in (self.pictures, self.labels, self.cells))
        return type(self)(tokens, *rest)


def patches(pictures: torch.Tensor) -> torch.Tensor:
    """Pictures, uint8 (count, height, width, 3), as Qwen's image processor cuts them.

    Height and width are whole multiples of 32.

    Returns:
        float32 (pictures * patches, 3 * 2 * 16 * 16) in [-1, 1]: patches of one visual token
        stand together, and each is repeated over the two frames of a still "video".
    """
    count, height, width, channels = pictures.shape
    rows, columns = height // (PATCH * MERGE), width // (PATCH * MERGE)
    cut = pictures.view(count, rows, MERGE, PATCH, columns, MERGE, PATCH, channels)
    cut = cut.permute(0, 1, 4, 2, 5, 7, 3, 6)  # picture, row, column, row in it, column in it, channel, y, x
    scaled = cut.to(torch.float32).div(127.5).sub(1.0)
    frames = scaled.unsqueeze(-3).expand(*scaled.shape[:-2], 2, PATCH, PATCH)
    return frames.reshape(count * rows * columns * MERGE * MERGE, -1)


class Packer:
    """Turns samples into batches for one model and processor.

    Args:
        side: height and width of every picture in pixels.
    """

    def __init__(
        self, model: Qwen3VLForConditionalGeneration, processor: Qwen3VLProcessor, side: int = 96
    ) -> None:
        self._model, self._tokenizer = model, processor.tokenizer
        self._grid = (1, side // PATCH, side // PATCH)
        self._image_id = self._tokenizer.convert_tokens_to_ids(tokens.IMAGE)
        self._picture = (
            tokens.VISION_START + tokens.IMAGE * (side // (PATCH * MERGE)) ** 2 + tokens.VISION_END
        )

    def prompt(self, pictures: int, text: str) -> str:
        """The chat template's text of one user turn, image slots filled, up to the assistant's turn."""
        body = self._picture * pictures + text
        return f"{tokens.TURN_START}user\n{body}{tokens.TURN_END}\n{tokens.TURN_START}assistant\n"

    def training(self, samples: Sequence[LookSample]) -> Batch:
        """Rows padded on the right; the answers and their end-of-turn tokens are to be learned."""
        rows, targets = [], []
        for sample in samples:
            ids: list[int] = []
            labels: list[int] = []
            for turn, (question, answer) in enumerate(sample.rounds):
                if turn:
                    asked = self._encode("\n" + self.prompt(0, question))
                else:
                    asked = self._encode(self.prompt(len(sample.pictures), question))
                told = self._encode(answer + tokens.TURN_END)
                ids += asked + told
                labels += [IGNORE] * len(asked) + told
            rows.append(ids)
            targets.append(labels)
        pictures = [picture for sample in samples for picture in sample.pictures]
        cells = torch.tensor([cells for sample in samples for cells in sample.cells])
        return self._pack(rows, targets, pictures, cells, left=False)

    def questions(self, samples: Sequence[LookSample]) -> Batch:
        """First questions only, padded on the left, ready to generate from."""
        rows = [self._encode(self.prompt(len(sample.pictures), sample.rounds[0][0])) for sample in samples]
        pictures = [picture for sample in samples for picture in sample.pictures]
        return self._pack(rows, rows, pictures, torch.empty(0), left=True)

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _pack(
        self,
        rows: list[list[int]],
        targets: list[list[int]],
        pictures: list[RGB],
        cells: torch.Tensor,
        *,
        left: bool,
    ) -> Batch:
        length = max(map(len, rows))
        ids = torch.full((len(rows), length), self._tokenizer.pad_token_id)
        labels = torch.full((len(rows), length), IGNORE)
        mask = torch.zeros((len(rows), length), dtype=torch.long)
        for k, (row, target) in enumerate(zip(rows, targets, strict=True)):
            place = slice(length - len(row), length) if left else slice(0, len(row))
            ids[k, place], labels[k, place], mask[k, place] = torch.tensor(row), torch.tensor(target), 1
        grid = torch.tensor([self._grid] * len(pictures))
        kinds = (ids == self._image_id).long()
        packed = {
            "input_ids": ids,
            "attention_mask": mask,
            "mm_token_type_ids": kinds,
            "image_grid_thw": grid,
        }
        if not left:
            # one longest row stands for all: pictures come first, and padding comes last
            k = int(mask.sum(dim=1).argmax())
            each = len(pictures) // len(rows)
            positions, _ = self._model.model.get_rope_index(
                ids[k : k + 1], kinds[k : k + 1], image_grid_thw=grid[:each]
            )
            packed["position_ids"] = positions.expand(3, len(rows), length)
        return Batch(packed, torch.from_numpy(np.stack(pictures)), labels, cells)
