"""verl's CPU backend: environment, platform, positions, log-probabilities."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from thinkedit.data.demonstrations import SCHEMA, png
from thinkedit.errors import DataError
from thinkedit.learner.cpu.environment import cpu_environment
from thinkedit.learner.sockets import RUN_KEY, own_socket
from thinkedit.learner.tokens import forbidden_token_ids
from thinkedit.types import RGB

SHIPPED = Path(__file__).parents[3] / "thinkedit" / "learner" / "policy" / "base"
BOUNDS = {"max_length": 400, "min_pixels": 9216, "max_pixels": 9216}
"""Pictures of 96 x 96 as they are."""


def test_children_find_the_name_that_verl_asks_for(tmp_path: Path) -> None:
    environment = cpu_environment(threads=1, scratch=tmp_path)
    code = "from importlib.metadata import version; print(version('vllm'))"
    told = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert "cpu" in told.stdout


def test_the_platform_is_chosen_by_name_only(tmp_path: Path) -> None:
    code = (
        "from verl.plugin.platform import get_platform, PlatformRegistry\n"
        "assert get_platform().device_name == 'cpu'\n"
        "assert not get_platform().is_platform_available()\n"
    )
    environment = cpu_environment(threads=1, scratch=tmp_path)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)


def test_runs_on_one_host_have_sockets_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = "ipc:///scratch/rl-colocate-zmq-01000000-replica-0-rank-0.sock"
    monkeypatch.setenv(RUN_KEY, "te-a")
    one = own_socket(handle)
    monkeypatch.setenv(RUN_KEY, "te-b")
    assert own_socket(handle) != one


def test_every_control_token_but_the_end_of_turn_is_forbidden() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(SHIPPED)
    forbidden = forbidden_token_ids(tokenizer)
    names = tokenizer.convert_ids_to_tokens(forbidden)
    assert {"<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|endoftext|>"} <= set(names)
    assert tokenizer.eos_token_id not in forbidden
    assert not set(tokenizer("<think>a</think>")["input_ids"]) & set(forbidden)


class TinyHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lm_head = nn.Linear(4, 10, bias=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.lm_head(hidden)
        return logits


def test_forbidden_tokens_have_no_probability_and_take_no_gradient() -> None:
    from thinkedit.learner.worker import mask_forbidden_tokens

    model = TinyHead()
    mask_forbidden_tokens(model, [2, 7])
    probabilities = model(torch.randn(3, 4)).softmax(-1)
    assert probabilities[:, [2, 7]].eq(0).all()
    probabilities[:, 0].sum().backward()
    assert model.lm_head.weight.grad is not None
    assert model.lm_head.weight.grad[[2, 7]].eq(0).all()


def test_entropy_stays_a_number_with_tokens_left_out() -> None:
    from thinkedit.learner.worker import mask_forbidden_tokens

    model = TinyHead()
    mask_forbidden_tokens(model, [2, 7])
    logits = model(torch.randn(3, 4))
    entropy = logits.logsumexp(-1) - (logits.softmax(-1) * logits).sum(-1)
    assert entropy.isfinite().all()


@pytest.mark.parametrize("lengths", [[5, 7, 5], [6, 6, 6]])
def test_positions_can_be_selected_whatever_the_lengths(lengths: list[int]) -> None:
    from tensordict import TensorDict
    from verl.utils.tensordict_utils import index_select_tensor_dict, maybe_fix_3d_position_ids

    from thinkedit.learner.positions import mend_position_ids

    rows = [torch.arange(4 * n).reshape(4, n) for n in lengths]
    nested = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
    data = TensorDict({"position_ids": nested}, batch_size=[3])
    mend_position_ids(data)
    maybe_fix_3d_position_ids(data)  # verl's own fix, which breaks batches of equal length
    picked = index_select_tensor_dict(data, [2, 0])["position_ids"].unbind()
    assert torch.equal(picked[0], rows[2])
    assert torch.equal(picked[1], rows[0])


def test_the_patch_embedding_is_the_models_own_but_for_rounding() -> None:
    from transformers.models.qwen3_vl import modeling_qwen3_vl

    from thinkedit.learner.cpu.engine import embed_patches

    config = modeling_qwen3_vl.Qwen3VLVisionConfig(hidden_size=24, patch_size=4, in_channels=3)
    own = modeling_qwen3_vl.Qwen3VLVisionPatchEmbed(config)
    patches = torch.randn(5, 3 * 2 * 4 * 4)
    assert torch.allclose(embed_patches(own, patches), own(patches), atol=1e-5)


def test_freezing_refuses_a_model_without_a_vision_tower() -> None:
    from thinkedit.learner.worker import freeze_vision

    with pytest.raises(ValueError, match="vision tower"):
        freeze_vision(TinyHead())


def write_rows(path: Path, asked: str, answered: str, pictures: Sequence[RGB]) -> Path:
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    row = {"messages": messages, "images": [{"bytes": png(picture)} for picture in pictures]}
    pq.write_table(pa.Table.from_pylist([row], schema=SCHEMA.remove(3).remove(2)), path)
    return path


def test_a_demonstration_with_too_few_pictures_is_refused(tmp_path: Path) -> None:
    from verl.utils.tokenizer import hf_processor, hf_tokenizer

    from thinkedit.learner.demonstrations import DemonstrationSet

    path = write_rows(tmp_path / "rows.parquet", "<image><image>x", "y", [np.zeros((96, 96, 3), np.uint8)])
    tokenizer, processor = hf_tokenizer(str(SHIPPED)), hf_processor(str(SHIPPED))
    rows = DemonstrationSet(str(path), tokenizer, OmegaConf.create(BOUNDS), processor)
    with pytest.raises(DataError, match="placeholders"):
        rows[0]


def test_demonstrations_have_the_prompt_of_a_rollout(tmp_path: Path) -> None:
    """Token by token, and with the loss on the reply and its end alone."""
    from PIL import Image
    from verl.utils.tokenizer import hf_processor, hf_tokenizer
    from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

    from thinkedit.learner.demonstrations import DemonstrationSet

    tokenizer, processor = hf_tokenizer(str(SHIPPED)), hf_processor(str(SHIPPED))
    text, reply = "instruction: paint the red star blue\nprompt: paint it", "<think>a red star</think>"
    pictures = [np.full((96, 96, 3), shade, np.uint8) for shade in (40, 200)]
    path = write_rows(tmp_path / "rows.parquet", "<image><image>" + text, reply, pictures)
    rows = DemonstrationSet(str(path), tokenizer, OmegaConf.create(BOUNDS), processor)
    builder = create_continuous_token_builder(
        tokenizer,
        hf_model_type="qwen3_vl",
        chat_template_kwargs={},
        mm_processor_kwargs={},
        processor=processor,
    )
    content = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": text}]
    prompt = builder.build_initial_tokens(
        [{"role": "user", "content": content}], images=[Image.fromarray(p) for p in pictures]
    )
    sample = rows[0]
    assert sample["input_ids"].tolist()[: len(prompt)] == prompt
    trained = sample["input_ids"][sample["loss_mask"].bool()].tolist()
    assert tokenizer.decode(trained) == reply + tokenizer.eos_token
    assert sample["position_ids"].shape == (4, len(sample["input_ids"]))
