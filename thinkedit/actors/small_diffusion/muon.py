"""Muon for convolutions too, in the weights' own precision."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class Muon(torch.optim.Optimizer):
    """Momentum whose every step is a nearly orthogonal matrix (Jordan et al. 2024).

    torch's own takes matrices only, and orthogonalises in bfloat16, which CPUs without such
    instructions emulate at many times the cost. Here a kernel is the matrix of its output channels
    by all else. Steps have about the size of Adam's at the same rate (Liu et al. 2025).

    Args:
        parameters: of two dimensions or more.
        lr: size of a step, root mean square.
        momentum: Nesterov's.
        weight_decay: share of the rate by which weights shrink.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(parameters, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step along the gradients; a closure is not supported."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                average = self.state[weight].setdefault("average", torch.zeros_like(weight))
                average.lerp_(weight.grad, 1 - group["momentum"])
                ahead = weight.grad.lerp(average, group["momentum"]).flatten(1)
                size = 0.2 * max(ahead.shape) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(orthogonal(ahead).reshape(weight.shape), alpha=-group["lr"] * size)


def orthogonal(matrix: Tensor) -> Tensor:
    """The matrix with its singular values drawn to about 1 (0.7 to 1.2), by five Newton-Schulz steps."""
    wide = matrix if matrix.size(0) <= matrix.size(1) else matrix.T
    wide = wide / wide.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = wide @ wide.T
        # Jordan's coefficients: steepest at 0, so that small singular values grow fastest
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), wide, beta=3.4445)
    return wide if matrix.size(0) <= matrix.size(1) else wide.T
