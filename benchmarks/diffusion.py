"""Seconds an edit of FLUX.1-Kontext takes, and edits per GPU-hour: python benchmarks/diffusion.py [--tiny].

The model has its full size and random weights, made on the device: nothing is downloaded, and pixels
mean nothing. Each way of running (eager, compiled, quantised) gets fresh weights and its own warm-up.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import diffusers
import numpy as np
import torch
import transformers
from tiny_pipelines import tiny, tokenizer

from thinkedit.actors.diffusion.editor import DiffusersEditor
from thinkedit.actors.diffusion.options import DiffusersConfig
from thinkedit.actors.diffusion.pipeline import EditPipeline
from thinkedit.errors import ConfigError
from thinkedit.types import RGB

WAYS: dict[str, dict[str, str]] = {
    "eager": {},
    "compiled": {"compile": "default"},
    "int8": {"quantization": "int8"},
    "fp8": {"quantization": "fp8"},
    "compiled int8_dynamic": {"compile": "default", "quantization": "int8_dynamic"},
    "compiled fp8_dynamic": {"compile": "default", "quantization": "fp8_dynamic"},
}
PROMPT = "paint the red star blue and keep everything else as it is"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="tiny weights on the CPU: shows that it runs")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--side", type=int, default=1024, help="of the picture, and what the model works at")
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--edits", type=int, default=3, help="timed in each way, after one that is not")
    parser.add_argument(
        "--ways", nargs="+", default=list(WAYS), choices=WAYS, metavar="WAY", help=str([*WAYS])
    )
    parser.add_argument(
        "--clients", type=int, nargs="+", default=[1, 2, 4], help="that ask one editor at once"
    )
    arguments = parser.parse_args()
    if arguments.tiny:
        arguments.device, arguments.side, arguments.steps = "cpu", 64, 2

    print(f"{_where(arguments.device)}, {arguments.side} x {arguments.side}, {arguments.steps} steps")
    print(f"{'way':24} {'s an edit':>10} {'least':>8} {'most':>8} {'warm-up':>8} {'GiB':>6}", flush=True)
    for way in arguments.ways:
        try:
            with opened(arguments, way) as bench:
                print(f"{way:24} {bench.line(arguments.edits)}", flush=True)
        except ConfigError as error:
            print(f"{way:24} not here: {error}", flush=True)

    way = "compiled" if "compiled" in arguments.ways else arguments.ways[0]
    print(f"\n{'clients, ' + way:24} {'edits/GPU-h':>12} {'busy':>6} {'GPU':>6} {'s a call':>9}")
    with opened(arguments, way) as bench:
        bench.editor.edit(bench.source, PROMPT, seed=0)
        for clients in arguments.clients:
            print(f"{clients:<24} {bench.crowd(clients, arguments.edits)}", flush=True)


class Bench:
    """One editor, and how long its edits take."""

    def __init__(self, config: DiffusersConfig, side: int, small: bool) -> None:
        self.editor = DiffusersEditor(config, loader=self._load)
        self.source: RGB = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
        self._small, self._busy = small, 0.0
        self._cuda = config.device != "cpu"

    def _load(self, config: DiffusersConfig) -> EditPipeline:
        pipeline = tiny("flux_kontext") if self._small else full(config.device)
        return _Timed(config, pipeline, self)

    def line(self, edits: int) -> str:
        """Median, least and most seconds of an edit, seconds of the first, and peak memory."""
        self.editor.load()
        first = self._seconds()
        took = [self._seconds() for _ in range(edits)]
        memory = f"{torch.cuda.max_memory_allocated() / 2**30:6.1f}" if self._cuda else f"{'-':>6}"
        return f"{statistics.median(took):10.2f} {min(took):8.2f} {max(took):8.2f} {first:8.1f} {memory}"

    def crowd(self, clients: int, edits: int) -> str:
        """Edits per hour of one GPU, the share of the time that the editor edited, the GPU's own
        measure of its use, and the mean seconds that a client waited."""
        self._busy, began = 0.0, time.perf_counter()
        with ThreadPoolExecutor(clients) as threads, _watched(self._cuda) as shares:
            waits = [wait for waited in threads.map(self._client, [edits] * clients) for wait in waited]
        wall = time.perf_counter() - began
        used = f"{statistics.mean(shares):5.0f}%" if shares else f"{'-':>6}"
        return (
            f"{len(waits) / wall * 3600:12.0f} {self._busy / wall:6.1%} {used} {statistics.mean(waits):9.2f}"
        )

    def _client(self, edits: int) -> list[float]:
        return [self._seconds() for _ in range(edits)]

    def _seconds(self) -> float:
        began = time.perf_counter()
        self.editor.edit(self.source, PROMPT, seed=0)
        return time.perf_counter() - began

    def was_busy(self, seconds: float) -> None:
        self._busy += seconds


class _Timed(EditPipeline):
    def __init__(self, config: DiffusersConfig, pipeline: Any, bench: Bench) -> None:
        super().__init__(config, pipeline)
        self._bench = bench

    def edit(self, *arguments: Any) -> RGB:
        began = time.perf_counter()
        try:
            return super().edit(*arguments)
        finally:
            self._bench.was_busy(time.perf_counter() - began)


@contextmanager
def opened(arguments: argparse.Namespace, way: str) -> Iterator[Bench]:
    config = DiffusersConfig(
        model="flux_kontext",
        device=arguments.device,
        steps=arguments.steps,
        area=arguments.side**2,
        **WAYS[way],  # type: ignore[arg-type]
    )
    bench = Bench(config, arguments.side, arguments.tiny)
    if arguments.device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    try:
        yield bench
    finally:
        bench.editor.close()
        torch.compiler.reset()


@contextmanager
def _watched(cuda: bool) -> Iterator[list[int]]:
    """A list that fills with the GPU's utilisation in percent, as its driver tells."""
    shares: list[int] = []
    if not cuda:
        yield shares
        return
    done = False

    def watch() -> None:
        while not done:
            shares.append(torch.cuda.utilization())
            time.sleep(0.2)

    with ThreadPoolExecutor(1) as thread:
        watching = thread.submit(watch)
        try:
            yield shares
        finally:
            done = True
    watching.result()


def full(device: str) -> Any:
    """FLUX.1-Kontext-dev as its configuration files have it, in bfloat16, with a small vocabulary."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    words = tokenizer(77)
    try:
        with torch.device(device):
            return diffusers.FluxKontextPipeline(
                scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
                vae=diffusers.AutoencoderKL(
                    block_out_channels=(128, 256, 512, 512),
                    down_block_types=("DownEncoderBlock2D",) * 4,
                    up_block_types=("UpDecoderBlock2D",) * 4,
                    layers_per_block=2,
                    latent_channels=16,
                    use_quant_conv=False,
                    use_post_quant_conv=False,
                    scaling_factor=0.3611,
                    shift_factor=0.1159,
                ),
                text_encoder=transformers.CLIPTextModel(
                    transformers.CLIPTextConfig(
                        vocab_size=len(words),
                        hidden_size=768,
                        intermediate_size=3072,
                        num_hidden_layers=12,
                        num_attention_heads=12,
                        pad_token_id=words.pad_token_id,
                        eos_token_id=words.eos_token_id,
                    )
                ),
                tokenizer=words,
                text_encoder_2=transformers.T5EncoderModel(
                    transformers.T5Config(
                        vocab_size=len(words),
                        d_model=4096,
                        d_kv=64,
                        d_ff=10240,
                        num_layers=24,
                        num_heads=64,
                        feed_forward_proj="gated-gelu",
                    )
                ),
                tokenizer_2=tokenizer(512),
                transformer=diffusers.FluxTransformer2DModel(guidance_embeds=True),
            )
    finally:
        torch.set_default_dtype(torch.float32)


def _where(device: str) -> str:
    name = torch.cuda.get_device_name(device) if device != "cpu" else "CPU, tiny weights"
    return f"{name}, torch {torch.__version__}, diffusers {diffusers.__version__}"


if __name__ == "__main__":
    main()
