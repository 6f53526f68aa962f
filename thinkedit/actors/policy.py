"""A learned policy served by vLLM in this process, for evaluation and inference.

Training rollouts use verl's vLLM servers instead (`agent_loop.py`); the messages, images and
forbidden tokens are the same.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any, NamedTuple, Self

from PIL import Image
from safetensors import safe_open

from thinkedit.actors.play import Context, Reply
from thinkedit.configs.schema import ClusterConfig, PolicyConfig, RolloutConfig
from thinkedit.envs.protocol import Protocol
from thinkedit.errors import ThinkEditError
from thinkedit.pixels import within_pixels
from thinkedit.types import Observation, Sampling


class PolicyError(ThinkEditError):
    """The policy could not be loaded or gave no completion."""


def forbidden_tokens(tokenizer: Any) -> list[int]:
    """Ids that a reply must never hold: every special token but the end of the turn.

    A policy that samples an image placeholder cannot be re-scored by the learner (the count of
    image features no longer fits the count of placeholders).
    """
    return sorted(set(tokenizer.all_special_ids) - {tokenizer.eos_token_id})


class VLLMPolicy:
    """Samples replies from a Hugging Face folder with vLLM's async engine.

    Use as an async context manager; the engine starts on entry and stops on exit. `load` puts
    another policy of the same architecture into it, which takes a second instead of a minute.

    Args:
        path: folder of a vision-language model.
        protocol: renders observations; must be the one it was trained with.
        temperature: 0 is greedy, and repeats itself; above it a GPU repeats itself too, for each seed,
            but a CPU does not: vLLM's CPU sampler takes no seed per request.
        version: recorded as the policy version of each reply.
    """

    def __init__(
        self,
        path: str | Path,
        protocol: Protocol,
        policy: PolicyConfig,
        rollout: RolloutConfig,
        cluster: ClusterConfig,
        *,
        temperature: float = 0.0,
        version: int = 0,
    ) -> None:
        self._path, self._protocol = str(path), protocol
        self._policy, self._rollout, self._cluster = policy, rollout, cluster
        self._temperature, self._version = temperature, version
        self._engine: Any = None

    async def __aenter__(self) -> Self:
        on_cpu = self._cluster.device == "cpu"
        if on_cpu:
            # vLLM reads these when it is imported; it would otherwise pin threads to cores that Ray shares.
            os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
            os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
            os.environ.setdefault("OMP_NUM_THREADS", str(self._rollout.cpu_threads))  # the engine's process
            # Lets the engine run its one worker in its own process: a process less to start.
            os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        # Their warnings are of no use to someone who watches a progress bar; errors still show.
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        os.environ.setdefault("TORCH_LOGS", "-torch.utils._pytree,-torch.utils.cpp_extension")
        from transformers import AutoProcessor
        from vllm import AsyncEngineArgs, SamplingParams
        from vllm.v1.engine.async_llm import AsyncLLM

        self._processor = AutoProcessor.from_pretrained(self._path)
        tokenizer = self._processor.tokenizer
        self._sampling = SamplingParams(
            temperature=self._temperature,
            top_p=self._rollout.top_p if self._temperature > 0 else 1.0,
            max_tokens=self._policy.max_reply_tokens,
            logprobs=0,
            logit_bias=dict.fromkeys(forbidden_tokens(tokenizer), -100.0),
        )
        args: dict[str, Any] = {
            "model": self._path,
            "dtype": self._policy.dtype,
            "max_model_len": self._policy.max_prompt_tokens + self._policy.max_reply_tokens,
            "max_num_seqs": self._rollout.max_num_seqs,
            "limit_mm_per_prompt": {"image": 2, "video": 0},
            "seed": 0,
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
        }
        if on_cpu:
            args |= {"enforce_eager": True, "distributed_executor_backend": "uni"}
        else:
            args |= {
                "tensor_parallel_size": self._rollout.tensor_parallel,
                "gpu_memory_utilization": self._rollout.gpu_memory_utilization,
            }
        self._engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**args))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._engine is not None:
            self._engine.shutdown()
            self._engine = None

    def can_load(self, path: str | Path) -> bool:
        """Whether `load` can put this folder's weights into the running engine.

        Not where tensors or words differ, nor with a tied output head, whose packed copy vLLM's CPU
        backend would keep.
        """
        here, there = _build(Path(self._path)), _build(Path(path))
        return here == there and any(name.startswith("lm_head.") for name in here.tensors)

    async def load(self, path: str | Path) -> None:
        """Replace the weights by those of another folder, with no request under way.

        Raises:
            PolicyError: not running, or the folder holds another kind of policy (`can_load`).
        """
        engine = self._running
        if not self.can_load(path):
            raise PolicyError(f"{path} is another kind of policy than {self._path}: start an engine for it")
        await engine.collective_rpc("reload_weights", kwargs={"weights_path": str(path)})
        # What was computed under the old weights: keys and values, and pictures' features.
        await engine.reset_prefix_cache()
        await engine.reset_mm_cache()
        await engine.reset_encoder_cache()
        self._path = str(path)

    @property
    def _running(self) -> Any:
        if self._engine is None:
            raise PolicyError("the vLLM engine is not running: use `async with VLLMPolicy(...) as policy`")
        return self._engine

    async def reply(self, observation: Observation, context: Context) -> Reply:
        """Sample one completion.

        Raises:
            PolicyError: used outside its `async with` block, or vLLM gave nothing.
        """
        engine = self._running
        prompt = self._processor.apply_chat_template(
            self._protocol.messages(observation), add_generation_prompt=True, tokenize=False
        )
        bounds = self._policy.min_pixels, self._policy.max_pixels
        pictures = self._protocol.images(observation)
        images = [within_pixels(Image.fromarray(picture), *bounds) for picture in pictures]
        sampling = self._sampling.clone()
        if self._cluster.device != "cpu":
            sampling.seed = (context.seed * 1_000_003 + observation.turn) % 2**31
        last = None
        async for output in engine.generate(
            {"prompt": prompt, "multi_modal_data": {"image": images}}, sampling, request_id=uuid.uuid4().hex
        ):
            last = output
        if last is None or not last.outputs:
            raise PolicyError("vLLM ended a request without a completion")
        completion = last.outputs[0]
        ids = tuple(completion.token_ids)
        logprobs = tuple(
            float(entry[token].logprob) for entry, token in zip(completion.logprobs, ids, strict=True)
        )
        return Reply(
            completion.text,
            Sampling(
                prompt_ids=tuple(last.prompt_token_ids),
                token_ids=ids,
                logprobs=logprobs,
                policy_version=self._version,
            ),
        )


class _Build(NamedTuple):
    """What two policies must share to run in one engine: shapes of tensors by name, and the tokenizer."""

    tensors: dict[str, tuple[int, ...]]
    tokenizer: bytes


def _build(folder: Path) -> _Build:
    tensors: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "np") as opened:
            tensors |= {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    words = folder / "tokenizer.json"
    return _Build(tensors, words.read_bytes() if words.is_file() else b"")


class ScriptedPolicy:
    """Lets a scripted expert play: an object with `reply(observation, task, verdict, rng) -> str`."""

    def __init__(self, expert: Any, seed: int = 0) -> None:
        self._expert, self._seed = expert, seed

    async def reply(self, observation: Observation, context: Context) -> Reply:
        import random

        rng = random.Random(f"{self._seed}/{context.task.uid}/{context.seed}/{observation.turn}")
        return Reply(self._expert.reply(observation, context.task, context.verdict, rng))
