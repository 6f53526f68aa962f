"""Teaches a tiny policy to look at pictures, and says in a model card how well it does."""

from __future__ import annotations

import contextlib
import itertools
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MethodType
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from transformers import Qwen3VLForConditionalGeneration, Qwen3VLProcessor
from transformers.models.qwen3_vl.modeling_qwen3_vl import apply_rotary_pos_emb_vision

from thinkedit.learner.policy import tiny
from thinkedit.learner.policy.batches import IGNORE, Batch, Packer
from thinkedit.learner.policy.samples import LookSample


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainConfig:
    """How to pretrain. Learning rates are peaks: linear warm-up, then a cosine to 2 % of them.

    minutes: stop then, wherever the cosine stands; it follows whichever of steps and minutes is
        further on. None: steps alone.
    cell_loss: weight of the auxiliary loss that names each cell's content and place from its
        visual token; its head is not part of the saved model.
    device: of the model and the optimisers, as torch names it.
    workers: processes that make samples; 0: the training process makes them itself.
    """

    steps: int = 2000
    minutes: float | None = None
    batch_size: int = 32
    muon_lr: float = 4e-3
    adam_lr: float = 4e-3
    warmup_steps: int = 50
    cell_loss: float = 1.0
    cell_kinds: int = 97
    held_out: int = 256
    log_every: int = 50
    seed: int = 0
    device: str = "cpu"
    workers: int = 0


Samples = Callable[[int], Iterator[LookSample]]
"""The endless samples of the k-th process that makes some."""


@dataclass(slots=True)
class Reading:
    """Accuracy on held-out samples, each in [0, 1]; an answer counts only if exact.

    first, second: descriptions of the two pictures; grounding: objects found by a phrase;
    comparing: an object found by a phrase, what became of it, and every other difference;
    imagining: an object found by a phrase, with what the question gives it instead.
    """

    first: float
    second: float
    grounding: float
    comparing: float
    imagining: float


@dataclass(slots=True)
class PretrainLog:
    """rows: every `log_every` steps, the step, seconds, learning-rate factor, and means since the row
    before: loss in nats a token, cell loss in nats a cell."""

    rows: list[dict[str, float]] = field(default_factory=list)
    reading: Reading | None = None
    seconds: float = 0.0
    steps: int = 0


def pretrain(
    model: Qwen3VLForConditionalGeneration,
    processor: Qwen3VLProcessor,
    samples: Samples,
    config: PretrainConfig,
    on_log: Callable[[dict[str, float]], None] = lambda row: None,
) -> PretrainLog:
    """Trains `model` in place, in float32: Muon for hidden matrices, AdamW for the rest."""
    torch.manual_seed(config.seed)
    device = torch.device(config.device)
    batches = _batches(Packer(model, processor), samples, config)  # forks: before the first use of a GPU
    model.to(device)
    cells = CellLoss(model, config.cell_kinds)
    optimisers = _optimisers(model, cells, config)
    peaks = [[group["lr"] for group in optimiser.param_groups] for optimiser in optimisers]
    log = PretrainLog()
    recent: list[dict[str, float]] = []
    began = time.monotonic()
    model.train()
    with batched_vision(model), _plain_attention(model), _float32_muon():
        for step in range(config.steps):
            seconds = time.monotonic() - began
            share = max(step / config.steps, seconds / (60 * config.minutes) if config.minutes else 0.0)
            if share >= 1:
                break
            factor = min(1.0, (step + 1) / config.warmup_steps) * (0.51 + 0.49 * math.cos(math.pi * share))
            for optimiser, peak in zip(optimisers, peaks, strict=True):
                for group, rate in zip(optimiser.param_groups, peak, strict=True):
                    group["lr"] = rate * factor

            batch = next(batches).to(device)
            with cells.watch():
                loss = answer_loss(model, batch)
                cell_loss = cells(batch.cells)
            (loss + config.cell_loss * cell_loss).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimiser in optimisers:
                optimiser.step()
                optimiser.zero_grad()

            log.steps = step + 1
            row = {
                "step": step + 1,
                "seconds": time.monotonic() - began,
                "loss": loss.item(),
                "cell_loss": cell_loss.item(),
                "lr_factor": factor,
            }
            on_log(row)
            recent.append(row)
            if log.steps % config.log_every == 0:
                means = {key: sum(r[key] for r in recent) / len(recent) for key in ("loss", "cell_loss")}
                log.rows.append(row | means)
                recent.clear()
    model.eval()
    log.seconds = time.monotonic() - began
    return log


def answer_loss(model: Qwen3VLForConditionalGeneration, batch: Batch) -> Tensor:
    """The model's own loss, mean nats a token of the answers; logits are made only where needed."""
    hidden = model.model(**batch.inputs, use_cache=False).last_hidden_state[:, :-1]
    labels = batch.labels[:, 1:]
    told = labels != IGNORE
    return F.cross_entropy(model.lm_head(hidden[told]).float(), labels[told])


class CellLoss(nn.Module):
    """Reads each cell's content and place off its visual token, so that vision learns early.

    Without it the place of a thing is what the model learns last.
    """

    def __init__(self, model: Qwen3VLForConditionalGeneration, kinds: int) -> None:
        super().__init__()
        self._watched = (model.model.visual.merger,)  # in a tuple: its weights are the model's, not ours
        self._kinds = kinds
        self._side = math.isqrt(model.config.vision_config.num_position_embeddings) // tiny.MERGE
        self.head = nn.Linear(model.config.vision_config.out_hidden_size, kinds + self._side**2)
        self._features = torch.empty(0)
        self.to(model.device)

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Keeps the visual tokens of the forward pass made within."""

        def keep(_module: nn.Module, _inputs: Any, features: Tensor) -> None:
            self._features = features

        hook = self._watched[0].register_forward_hook(keep)
        try:
            yield
        finally:
            hook.remove()

    def forward(self, cells: Tensor) -> Tensor:
        """Mean cross-entropy of content plus that of place; `cells` is (pictures, cells a picture)."""
        scores = self.head(self._features).float()
        places = torch.arange(self._side**2, device=cells.device).repeat(len(cells))
        content = F.cross_entropy(scores[:, : self._kinds], cells.flatten())
        return content + F.cross_entropy(scores[:, self._kinds :], places)


@contextlib.contextmanager
def batched_vision(model: Qwen3VLForConditionalGeneration) -> Iterator[None]:
    """Runs the vision tower on pictures of one size as one batch; equal results, a third less time.

    transformers attends picture by picture in a Python loop and cuts patches with a 3-D
    convolution whose kernel equals its stride, that is a matrix product.
    """

    def embed(self: Any, hidden_states: Tensor) -> Tensor:
        cut: Tensor = F.linear(hidden_states, self.proj.weight.flatten(1), self.proj.bias)
        return cut

    def attend(
        self: Any,
        hidden_states: Tensor,
        cu_seqlens: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        **_: Any,
    ) -> Tensor:
        pictures, length = len(cu_seqlens) - 1, int(cu_seqlens[1])
        if pictures * length != len(hidden_states):
            raise ValueError("batched_vision takes pictures of one size")
        q, k, v = self.qkv(hidden_states).view(len(hidden_states), 3, self.num_heads, -1).unbind(1)
        q, k = apply_rotary_pos_emb_vision(q, k, *position_embeddings)
        q, k, v = (x.view(pictures, length, self.num_heads, -1).transpose(1, 2) for x in (q, k, v))
        weights = (q @ k.transpose(2, 3) * self.scaling).softmax(-1, dtype=torch.float32).to(v.dtype)
        mixed = (weights @ v).transpose(1, 2).reshape(len(hidden_states), -1)
        out: Tensor = self.proj(mixed)
        return out

    visual = model.model.visual
    parts: list[tuple[nn.Module, Callable[..., Tensor]]] = [(visual.patch_embed, embed)]
    parts += [(block.attn, attend) for block in visual.blocks]
    for module, forward in parts:
        module.forward = MethodType(forward, module)
    try:
        yield
    finally:
        for module, _ in parts:
            del module.forward


@contextlib.contextmanager
def _plain_attention(model: Qwen3VLForConditionalGeneration) -> Iterator[None]:
    """Written-out attention: on CPU the fused kernel's backward pass takes longer at this size."""
    usual = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(usual)


@contextlib.contextmanager
def _float32_muon() -> Iterator[None]:
    """torch's Muon orthogonalises in bfloat16, which a CPU without such instructions emulates: 5 times
    the cost of all else in a step of this size. The same iteration in the gradient's own dtype."""

    def orthogonalise(
        grad: Tensor, ns_coefficients: tuple[float, float, float], ns_steps: int, eps: float
    ) -> Tensor:
        a, b, c = ns_coefficients
        tall = grad.size(0) > grad.size(1)
        x = grad.T if tall else grad
        x = x / x.norm().clamp(min=eps)
        for _ in range(ns_steps):
            gram = x @ x.T
            x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        return x.T if tall else x

    with patch.object(torch.optim._muon, "_zeropower_via_newtonschulz", orthogonalise):
        yield


class _Batches(IterableDataset[Batch]):
    """Packed batches without end, other ones in each process."""

    def __init__(self, packer: Packer, samples: Samples, config: PretrainConfig) -> None:
        self._packer, self._samples, self._config = packer, samples, config

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        k = worker.id if worker else 0
        rng = random.Random(f"batches/{self._config.seed}/{k}")
        return map(self._packer.training, _like_lengths(self._samples(k), self._config.batch_size, rng))


def _batches(packer: Packer, samples: Samples, config: PretrainConfig) -> Iterator[Batch]:
    """Batches in an order that depends on seed and workers alone."""
    return iter(DataLoader(_Batches(packer, samples, config), batch_size=None, num_workers=config.workers))


def _like_lengths(
    samples: Iterator[LookSample], size: int, rng: random.Random, window: int = 8
) -> Iterator[list[LookSample]]:
    """Batches of samples of about one length, so that little is padding; sorts `window` batches at once."""
    while drawn := list(itertools.islice(samples, size * window)):
        drawn.sort(key=lambda sample: sum(len(q) + len(a) for q, a in sample.rounds))
        batches = [drawn[at : at + size] for at in range(0, len(drawn), size)]
        rng.shuffle(batches)
        yield from batches


def _optimisers(
    model: Qwen3VLForConditionalGeneration, cells: CellLoss, config: PretrainConfig
) -> list[torch.optim.Optimizer]:
    hidden: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        inner = parameter.ndim == 2 and "embed" not in name and "lm_head" not in name
        (hidden if inner else rest).append(parameter)
    return [
        torch.optim.Muon(
            hidden, lr=config.muon_lr, momentum=0.95, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(
            [*rest, *cells.head.parameters()], lr=config.adam_lr, betas=(0.9, 0.98), weight_decay=0.0
        ),
    ]


@torch.no_grad()
def answers(
    model: Qwen3VLForConditionalGeneration,
    processor: Qwen3VLProcessor,
    samples: list[LookSample],
    max_new_tokens: int = 96,
    batch_size: int = 128,
) -> list[str]:
    """Greedy answers to each sample's first question."""
    packer = Packer(model, processor)
    told: list[str] = []
    for at in range(0, len(samples), batch_size):
        batch = packer.questions(samples[at : at + batch_size]).to(model.device)
        ids = model.generate(**batch.inputs, do_sample=False, max_new_tokens=max_new_tokens)
        new = ids[:, batch.inputs["input_ids"].shape[1] :]
        told += processor.tokenizer.batch_decode(new, skip_special_tokens=True)
    return told


def measure(
    model: Qwen3VLForConditionalGeneration,
    processor: Qwen3VLProcessor,
    reading: list[LookSample],
    grounding: list[LookSample],
    comparing: list[LookSample],
    imagining: list[LookSample],
) -> Reading:
    """Exact-match accuracy on samples that ask to describe both pictures, find, compare, and imagine."""
    parts = [
        (got.partition(" second: "), sample.rounds[0][1].partition(" second: "))
        for got, sample in zip(answers(model, processor, reading), reading, strict=True)
    ]

    def exact(samples: list[LookSample]) -> float:
        told = answers(model, processor, samples, max_new_tokens=48)
        return _mean([got == sample.rounds[0][1] for got, sample in zip(told, samples, strict=True)])

    return Reading(
        first=_mean([got[0] == true[0] for got, true in parts]),
        second=_mean([got[2] == true[2] for got, true in parts]),
        grounding=exact(grounding),
        comparing=exact(comparing),
        imagining=exact(imagining),
    )


def _mean(hits: list[bool]) -> float:
    return sum(hits) / len(hits)


def write_card(
    out: Path, model: Qwen3VLForConditionalGeneration, config: PretrainConfig, log: PretrainLog, command: str
) -> None:
    """README.md of the saved folder: what the model is, how it was made, how well it looks."""
    reading = log.reading
    figures = asdict(reading) if reading else {}
    names = {
        "first": "first picture described exactly",
        "second": "second picture described exactly",
        "grounding": "object found by a phrase",
        "comparing": "pictures compared, from an object on",
        "imagining": "object found by a phrase, imagined otherwise",
    }
    parameters = sum(parameter.numel() for parameter in model.parameters())
    words = model.config.text_config.vocab_size
    lines = [
        "---",
        "license: apache-2.0",
        "library_name: transformers",
        "pipeline_tag: image-text-to-text",
        "---",
        "# thinkedit tiny base",
        "",
        "A Qwen3-VL of a million parameters that can look at two 96 x 96 pictures of thinkedit's world and",
        "say what is where. It knows nothing of instructions, edits, scores or replies: it stands where",
        "Qwen3-VL stands for a real run, so that fine-tuning has the same work to do.",
        "",
        f"- made by `{command}`",
        f"- parameters: {parameters:,}; float32; head not tied to the embedding",
        f"- vocabulary: {words} tokens; a picture is 9 visual tokens, one a cell",
        f"- training: {log.steps} steps of {config.batch_size} samples in {log.seconds:.0f} s,"
        f" seed {config.seed}",
        "",
        f"| on {config.held_out} held-out samples each, greedy, exact match | share |",
        "|---|---|",
        *(f"| {names[key]} | {value:.3f} |" for key, value in figures.items()),
        "",
        "| step | seconds | loss (nats a token) | cell loss |",
        "|---|---|---|---|",
        *(
            f"| {row['step']:.0f} | {row['seconds']:.0f} | {row['loss']:.4f} | {row['cell_loss']:.4f} |"
            for row in log.rows
        ),
        "",
    ]
    (out / "README.md").write_text("\n".join(lines), encoding="utf-8")
