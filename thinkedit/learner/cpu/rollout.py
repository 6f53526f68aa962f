"""New weights into a running vLLM on a CPU.

vLLM's CPU linears keep a packed copy and drop `.weight`, so verl's plain `load_weights` raises;
a tied `lm_head` keeps its old packed copy and silently answers with it.
"""

from __future__ import annotations

import os
from typing import Any

import torch

from thinkedit.learner.cpu.environment import ROLLOUT_THREADS
from thinkedit.learner.rollout import RolloutExtension


class CPURolloutExtension(RolloutExtension):
    """Receives verl's stream of weights with vLLM's layer-wise reload."""

    def update_weights_from_ipc(
        self, peft_config: Any = None, base_sync_done: bool = False, use_shm: bool = False
    ) -> None:
        """Called by verl after each update, with the sender already waiting at the socket."""
        from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightReceiver
        from vllm.config import set_current_vllm_config
        from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm
        from vllm.model_executor.model_loader.reload import (
            finalize_layerwise_reload,
            initialize_layerwise_reload,
        )

        model = self.model_runner.model

        def load(weights: list[tuple[str, torch.Tensor]], is_last: bool) -> None:
            # The receiver reuses its buffer, and a layer is packed only when all its parts are in.
            self._update_weights([(name, tensor.clone()) for name, tensor in weights], None, False)

        # OMP_NUM_THREADS is the learner's in this process; weights come before the first reply.
        torch.set_num_threads(int(os.environ[ROLLOUT_THREADS]))
        receiver = BucketedWeightReceiver(
            zmq_handle=self._get_zmq_handle(), device=self.device or torch.device("cpu"), use_shm=use_shm
        )
        with set_current_vllm_config(self.vllm_config):
            initialize_layerwise_reload(model)
            receiver.receive_weights(on_bucket_received=load)
            finalize_layerwise_reload(model, self.vllm_config.model_config)
            for module in model.modules():
                # Layer-wise reload passes a tied lm_head over: its packed copy would keep old weights.
                if hasattr(module, "cpu_linear") and module.weight.numel():
                    dispatch_cpu_unquantized_gemm(module, remove_weight=False)
