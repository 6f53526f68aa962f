"""vLLM and transformers agree on the shipped base: the rollout and the learner see one model."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("vllm")

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

# vLLM in a process of its own: it takes over signals, threads and environment variables.
SCRIPT = """
import json, sys
from PIL import Image
from vllm import LLM, SamplingParams

jobs = json.load(open(sys.argv[2]))
llm = LLM(
    sys.argv[1],
    dtype="float32",
    enforce_eager=True,
    max_model_len=512,
    max_num_seqs=8,
    limit_mm_per_prompt={"image": 2, "video": 0},
    distributed_executor_backend="uni",
)
prompts = [
    {
        "prompt": job["prompt"],
        "multi_modal_data": {"image": [Image.open(path).convert("RGB") for path in job["pictures"]]},
    }
    for job in jobs
]
sampling = SamplingParams(temperature=1.0, max_tokens=48, logprobs=0, seed=0)
told = []
for output in llm.generate(prompts, sampling, use_tqdm=False):
    reply = output.outputs[0]
    told.append(
        {
            "prompt_ids": list(output.prompt_token_ids),
            "ids": list(reply.token_ids),
            "logprobs": [step[token].logprob for token, step in zip(reply.token_ids, reply.logprobs)],
        }
    )
json.dump(told, open(sys.argv[3], "w"))
"""


def test_vllm_gives_transformers_log_probs_on_its_own_samples(tmp_path: Path) -> None:
    import torch
    from PIL import Image
    from transformers import AutoProcessor, Qwen3VLForConditionalGeneration

    from thinkedit.data import looking
    from thinkedit.learner.policy import shipped

    processor = AutoProcessor.from_pretrained(shipped.BASE)
    model = Qwen3VLForConditionalGeneration.from_pretrained(shipped.BASE)
    jobs = []
    for k, sample in enumerate(itertools.islice(looking.reading_test(9), 4)):
        # the last one has pictures of another size, as a user's own may have
        side = 96 if k < 3 else 160
        paths = [tmp_path / f"{k}-{n}.png" for n in range(2)]
        for path, picture in zip(paths, sample.pictures, strict=True):
            Image.fromarray(picture).resize((side, side)).save(path)
        content = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": sample.rounds[0][0]}]
        prompt = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        jobs.append({"prompt": prompt, "pictures": [str(path) for path in paths]})
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))

    settings = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": "WARNING",
    }
    files = [str(shipped.BASE), str(tmp_path / "jobs.json"), str(tmp_path / "told.json")]
    subprocess.run([sys.executable, "-c", SCRIPT, *files], check=True, env=os.environ | settings, timeout=280)

    gaps = []
    for job, told in zip(jobs, json.loads((tmp_path / "told.json").read_text()), strict=True):
        pictures = [Image.open(path).convert("RGB") for path in job["pictures"]]
        inputs = processor(text=[job["prompt"]], images=pictures, return_tensors="pt")
        assert inputs["input_ids"][0].tolist() == told["prompt_ids"]
        reply = torch.tensor([told["ids"]])
        inputs["input_ids"] = torch.cat([inputs["input_ids"], reply], dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], 0 * reply], dim=1)
        with torch.no_grad():
            logits = model(**inputs).logits[0, -reply.shape[1] - 1 : -1]
        logprobs = logits.log_softmax(-1).gather(1, reply.T)[:, 0].tolist()
        gaps += [abs(a - b) for a, b in zip(logprobs, told["logprobs"], strict=True)]
    assert len(gaps) > 40
    assert all(math.isfinite(gap) for gap in gaps)
    assert max(gaps) < 1e-4
