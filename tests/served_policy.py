"""Program: `served_policy.py FIRST SECOND OUT` asks a served policy, loads another, and asks that too.

In a process of its own, since vLLM takes over signals, threads and environment variables.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from thinkedit.actors.play import Context
from thinkedit.actors.policy import VLLMPolicy
from thinkedit.configs.load import load_config
from thinkedit.envs.protocol import Protocol
from thinkedit.envs.world.tasks import WorldTasks
from thinkedit.types import Observation, Scores, Task, Verdict

SETTINGS = ["rollout.max_num_seqs=8", "policy.max_reply_tokens=48", "policy.max_pixels=12544"]
CONFIG = load_config("demo", SETTINGS)
PROTOCOL = Protocol(CONFIG.protocol)
COUNT = 12


def task(k: int) -> Task:
    return WorldTasks().task("test", k)


def observation(k: int) -> Observation:
    source, words = task(k).source, task(k).instruction
    if k == COUNT - 1:  # pictures of another size, as a user's own may have
        source = source.repeat(2, axis=0).repeat(2, axis=1)[:160, :160]
    return Observation(source=source, edited=source, instruction=words, prompt=words, turn=0, turns_left=1)


async def ask(policy: VLLMPolicy, k: int) -> dict[str, Any]:
    verdict = Verdict(scores=Scores(0.0, 10.0), judge_id="none", prompt_hash="none")
    reply = await policy.reply(observation(k), Context(task=task(k), verdict=verdict, seed=k))
    assert reply.sampling is not None
    sampling = reply.sampling
    return {"prompt": sampling.prompt_ids, "reply": sampling.token_ids, "logprobs": sampling.logprobs}


async def main(first: str, second: str, out: str) -> None:
    policy = VLLMPolicy(first, PROTOCOL, CONFIG.policy, CONFIG.rollout, CONFIG.cluster, temperature=1.0)
    async with policy:
        before = await asyncio.gather(*(ask(policy, k) for k in range(COUNT)))
        await policy.load(second)
        after = await asyncio.gather(*(ask(policy, k) for k in range(COUNT)))
    Path(out).write_text(json.dumps([before, after]))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
