"""Log-probabilities of tokens, a thousand at a time.

Where flash-attn is not installed verl takes them one row of logits after another to save memory
(torch_functional.py, logprobs_from_logits_v2): thousands of tiny operations, most of an update of a small
model, on a GPU as on a CPU. Blocks of rows save as much: in half precision a block's copy in float32 is
made anew in the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch.utils.checkpoint import checkpoint
from verl.utils import torch_functional
from verl.workers.engine.fsdp import transformer_impl

ROWS = 1024


def token_log_probs(
    logits: torch.Tensor, labels: torch.Tensor, inplace_backward: bool = True
) -> torch.Tensor:
    """Log-probability of each label, in float32. logits: [..., vocabulary]; labels: [...]."""
    flat = logits.flatten(0, -2)
    chosen = flat.gather(-1, labels.flatten()[:, None])[:, 0].float()
    norms = [
        _log_norm(rows) if rows.dtype == torch.float32 else checkpoint(_log_norm, rows, use_reentrant=False)
        for rows in torch.split(flat, ROWS)
    ]
    return (chosen - torch.cat(norms)).view(labels.shape)


def _log_norm(rows: torch.Tensor) -> torch.Tensor:
    return rows.float().logsumexp(-1)


@contextmanager
def in_blocks() -> Iterator[None]:
    """Let verl's engine take log-probabilities in blocks, unless it has flash-attn's kernel."""
    if torch_functional.FLAH_ATTN_CROSS_ENTROPY_LOSS_AVAILABLE:
        yield
        return
    with patch.object(transformer_impl, "logprobs_from_logits", token_log_probs):
        yield
