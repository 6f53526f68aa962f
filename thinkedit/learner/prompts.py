"""The training set as verl sees it: positions in a stream of tasks, no pictures.

verl loads the class through `data.custom_cls`. Rollout workers build the task itself from the
index, so that images never travel through the driver.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.utils.data import Dataset

# Positions of an endless source that one seed has for itself; no run is as long.
STRETCH = 10**9


class TaskStream(Dataset[dict[str, Any]]):
    """`length` positions of a shuffled, repeated split.

    `data_files` names a section of `data.streams` in verl's config: `split`, `length`,
    `task_count` (None where the source is endless: each seed then reads a stretch of its own, in
    order) and `seed`. The order depends on these alone, so a resumed run goes on exactly where the
    stopped one was.
    """

    def __init__(self, data_files: str, tokenizer: Any, config: Any, processor: Any = None, **_: Any) -> None:
        stream = config.streams[data_files]
        self._split, self._length = str(stream.split), int(stream.length)
        self._count = None if stream.task_count is None else int(stream.task_count)
        self._seed = int(stream.seed)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, position: int) -> dict[str, Any]:
        return {
            "raw_prompt": [{"role": "user", "content": ""}],  # verl counts a batch by this column
            "split": self._split,
            "index": self._index(position),
            "data_source": self._split,
            "agent_name": "thinkedit",
        }

    def _index(self, position: int) -> int:
        if self._count is None:
            return self._seed * STRETCH + position
        epoch, offset = divmod(position, self._count)
        order = np.random.default_rng((self._seed, epoch)).permutation(self._count)
        return int(order[offset])
