"""vLLM worker extension: what our rollouts ask of vLLM beyond verl's extension.

verl loads the class by the dotted path in `engine_kwargs.vllm.worker_extension_cls`.
"""

from __future__ import annotations

from typing import Any

from transformers import AutoTokenizer
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension

from thinkedit.learner.sockets import own_socket
from thinkedit.learner.tokens import forbidden_token_ids


class RolloutExtension(vLLMColocateWorkerExtension):  # type: ignore[misc]  # verl is untyped
    """Forbids control tokens inside the model, so that reported log-probabilities know of it."""

    def monkey_patch_model(self, vocab_size: int, banned_token_ids: list[int] | None = None) -> None:
        """Called once by verl's server; its own list holds the vision placeholders only."""
        tokenizer = AutoTokenizer.from_pretrained(self.model_config.tokenizer)
        banned = sorted({*(banned_token_ids or ()), *forbidden_token_ids(tokenizer)})
        super().monkey_patch_model(vocab_size, banned)

    def _get_zmq_handle(self) -> str:
        return own_socket(super()._get_zmq_handle())

    def weight_digest(self) -> dict[str, Any]:
        """Sums of a few weights; tests compare them before and after a transfer."""
        return {
            name: float(weight.double().sum()) for name, weight in self.model_runner.model.named_parameters()
        }
