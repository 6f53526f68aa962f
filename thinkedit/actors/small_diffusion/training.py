"""Teaches a pipeline to edit, by flow matching on pictures of the world."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thinkedit.actors.small_diffusion.muon import Muon
from thinkedit.actors.small_diffusion.network import COARSE, EditNetwork
from thinkedit.actors.small_diffusion.pipeline import SmallDiffusionPipeline
from thinkedit.actors.small_diffusion.samples import EMPTY, EditSample
from thinkedit.envs.world.scene import COLOURS, SHAPES, SIZES
from thinkedit.errors import ConfigError
from thinkedit.types import RGB

_LOOKS = (len(SIZES), len(COLOURS), len(SHAPES))
_VISIBLE = 0.05  # of the range of 2
_ENDS = ("embed", "order", "noise", "places", "film", "inlet", "outlet")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How to train. The learning rate is a peak: linear warm-up, then a cosine to 2 % of it.

    minutes: stop then, wherever the cosine stands; it follows whichever of steps and minutes is
        further on. None: steps alone.
    changed_weight: how much more a pixel counts that the edit changes.
    cell_loss: weight of the auxiliary loss that names each cell's object to be; its head is not
        part of the saved pipeline.
    """

    steps: int = 1500
    minutes: float | None = None
    batch_size: int = 32
    lr: float = 2e-3
    warmup_steps: int = 50
    changed_weight: float = 8.0
    cell_loss: float = 0.05
    log_every: int = 100
    seed: int = 0


@dataclass(slots=True)
class TrainLog:
    """rows: every `log_every` steps, the step, seconds, learning-rate factor, and means since the row
    before: loss (weighted squared error, pixels in [-1, 1]), cell loss in nats a cell."""

    rows: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    steps: int = 0


class Training:
    """Trains a pipeline's network in place, in float32: Muon for all that lies between its ends, AdamW
    for the rest.

    `save` and `resume` carry everything over, so that a training that was stopped goes on as if it had
    not been; only steps and minutes may be other ones, which moves the end of the cosine.
    """

    def __init__(self, pipeline: SmallDiffusionPipeline, config: TrainConfig) -> None:
        self._network, self._tokenizer = pipeline.network, pipeline.tokenizer
        self._shift: float = pipeline.scheduler.config.shift
        self._config = config
        self._chance = torch.Generator().manual_seed(config.seed)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(config.seed)
            self._cells = CellLoss(self._network.config.width)
        self._optimisers = _optimisers(self._network, self._cells, config.lr)
        self._recent: list[dict[str, float]] = []
        self.log = TrainLog()

    def run(
        self,
        samples: Iterator[EditSample],
        on_step: Callable[[dict[str, float]], None] = lambda row: None,
    ) -> TrainLog:
        """Trains to the end.

        Args:
            samples: from number `log.steps * batch_size` on.
            on_step: called with each step's row.
        """
        config, log = self._config, self.log
        began = time.monotonic() - log.seconds
        self._network.train()
        while True:
            log.seconds = time.monotonic() - began
            share = max(
                log.steps / config.steps, log.seconds / (60 * config.minutes) if config.minutes else 0
            )
            if share >= 1:
                break
            warm = min(1.0, (log.steps + 1) / config.warmup_steps)
            factor = warm * (0.51 + 0.49 * math.cos(math.pi * share))
            row = self._step(list(itertools.islice(samples, config.batch_size)), factor)
            log.steps += 1
            log.seconds = time.monotonic() - began
            row = {"step": log.steps, "seconds": log.seconds, "lr_factor": factor} | row
            self._recent.append(row)
            if log.steps % config.log_every == 0:
                means = {k: fmean(r[k] for r in self._recent) for k in ("loss", "cell_loss")}
                log.rows.append(row | means)
                self._recent.clear()
            on_step(row)
        self._network.eval()
        return log

    def _step(self, batch: list[EditSample], factor: float) -> dict[str, float]:
        for group in itertools.chain.from_iterable(o.param_groups for o in self._optimisers):
            group["lr"] = self._config.lr * factor
        words = self._tokenizer([s.prompt for s in batch], padding=True, truncation=True, return_tensors="pt")
        source, target = pixels([s.source for s in batch]), pixels([s.target for s in batch])
        sigma = shifted(torch.rand(len(batch), generator=self._chance), self._shift)
        noise = torch.randn(target.shape, generator=self._chance)
        reading = self._network.read(words.input_ids, words.attention_mask)
        with self._cells.watch(self._network.planner):
            clean = self._network(noised(target, noise, sigma), source, sigma, reading)
        loss = edit_loss(clean, source, target, self._config.changed_weight)
        cell_loss = self._cells(torch.tensor([s.cells for s in batch]))
        (loss + self._config.cell_loss * cell_loss).backward()
        nn.utils.clip_grad_norm_(self._network.parameters(), 1.0)
        for optimiser in self._optimisers:
            optimiser.step()
            optimiser.zero_grad()
        return {"loss": loss.item(), "cell_loss": cell_loss.item()}

    def save(self, path: Path) -> None:
        """Writes all that `resume` needs; a crash meanwhile leaves the file as it was."""
        state = {
            "config": _kept(self._config),
            "network": self._network.state_dict(),
            "cells": self._cells.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self._optimisers],
            "chance": self._chance.get_state(),
            "recent": self._recent,
            "log": asdict(self.log),
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def resume(self, path: Path) -> None:
        """Takes up where `save` left off.

        Raises:
            ConfigError: the file is of a training with other settings.
        """
        state = torch.load(path, weights_only=True)
        for name, value in _kept(self._config).items():
            if state["config"].get(name) != value:
                raise ConfigError(
                    f"{path} was trained with {name}={state['config'].get(name)}, not {value}; give the "
                    "same, or train anew in another folder"
                )
        self._network.load_state_dict(state["network"])
        self._cells.load_state_dict(state["cells"])
        for optimiser, saved in zip(self._optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self._chance.set_state(state["chance"])
        self._recent = state["recent"]
        self.log = TrainLog(**state["log"])


def _kept(config: TrainConfig) -> dict[str, float]:
    """The settings that a training keeps when it is taken up again."""
    return {name: value for name, value in asdict(config).items() if name not in ("steps", "minutes")}


def _optimisers(network: EditNetwork, cells: CellLoss, lr: float) -> list[torch.optim.Optimizer]:
    hidden: list[nn.Parameter] = []
    rest: list[nn.Parameter] = [*cells.parameters()]
    for name, parameter in network.named_parameters():
        inner = parameter.ndim >= 2 and not any(part in _ENDS for part in name.split("."))
        (hidden if inner else rest).append(parameter)
    return [Muon(hidden, lr), torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.99), weight_decay=1e-4)]


def pixels(pictures: Sequence[RGB]) -> Tensor:
    """(B, 3, H, W) in [-1, 1], as the pipeline's image processor makes them."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float().div(127.5).sub(1.0)


def shifted(share: Tensor, shift: float) -> Tensor:
    """Noise levels of the scheduler's schedule, at shares of it in [0, 1]."""
    return shift * share / (1 + (shift - 1) * share)


def noised(picture: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """On the straight line from the picture to noise, as far as sigma says (flow matching)."""
    return torch.lerp(picture, noise, sigma[:, None, None, None])


def edit_loss(clean: Tensor, source: Tensor, target: Tensor, changed_weight: float) -> Tensor:
    """Mean squared error; pixels that the edit changes count 1 + `changed_weight` times."""
    changed = ((source - target).abs().amax(1, keepdim=True) > _VISIBLE).float()
    return ((1 + changed_weight * changed) * (clean - target) ** 2).mean()


class CellLoss(nn.Module):
    """Reads size, colour and shape of each cell's object to be off the network's plan.

    Without it the network learns where to draw long before it learns what.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, 1 + sum(_LOOKS))
        self._plan = torch.empty(0)

    @contextlib.contextmanager
    def watch(self, planner: nn.Module) -> Iterator[None]:
        """Keeps the plan of the forward pass made within."""

        def keep(_module: nn.Module, _inputs: Any, plan: Tensor) -> None:
            self._plan = plan[:, : COARSE**2]

        hook = planner.register_forward_hook(keep)
        try:
            yield
        finally:
            hook.remove()

    def forward(self, cells: Tensor) -> Tensor:
        """Nats a cell: whether it holds an object, and what it is if so.

        Args:
            cells: (B, 9, 3) as `EditSample.cells`.
        """
        plan = self._plan.transpose(1, 2).reshape(len(cells), -1, COARSE, COARSE)
        scores = self.head(F.avg_pool2d(plan, 2).flatten(2).transpose(1, 2)).flatten(0, 1)
        filled, *looks = scores.split((1, *_LOOKS), dim=1)
        truth = cells.flatten(0, 1)
        loss = F.binary_cross_entropy_with_logits(filled[:, 0], (truth[:, 0] != EMPTY).float())
        for k, look in enumerate(looks):
            loss = loss + F.cross_entropy(look, truth[:, k], ignore_index=EMPTY)
        return loss
