"""Episodes that raise are counted, not dropped."""

import asyncio
from collections import Counter, defaultdict
from types import SimpleNamespace
from typing import Any

from thinkedit.actors.agent_loop import EditLoop, RolloutError, TurnSample
from thinkedit.actors.manager import ThinkEditWorker
from thinkedit.learner.samples import TurnRecord
from thinkedit.types import Outcome


class Loop(EditLoop):
    """The second episode of a group meets an engine that is down."""

    def __init__(self) -> None:
        self.tokenizer = SimpleNamespace(eos_token_id=0)

    async def run(self, sampling_params: dict[str, Any], **row: Any) -> list[TurnSample]:
        if row["session_id"] == 1:
            raise RolloutError("the rollout engine gave no token")
        return [self._empty_sample("g", "played", 3, Outcome.OK)]


class Worker(ThinkEditWorker):
    def __init__(self) -> None:
        self._gate, self._loop = asyncio.Semaphore(2), Loop()
        self._under_way, self._finished = Counter(), defaultdict(list)
        self.put: list[TurnSample] = []

    async def _put(self, episodes: list[tuple[list[TurnSample], dict[str, Any]]], *, validate: bool) -> None:
        self.put += [sample for samples, _ in episodes for sample in samples]


async def test_an_episode_that_raises_is_a_masked_sample_of_its_group() -> None:
    worker = Worker()
    row = {"uid": "g", "global_steps": 3, "split": "train", "index": 0}
    runs = [
        worker._run_agent_loop({}, {"validate": False}, agent_name="thinkedit", session_id=place, **row)
        for place in range(2)
    ]
    await asyncio.gather(*runs)
    records = [TurnRecord.from_dict(sample.extra_fields["thinkedit"]) for sample in worker.put]
    assert {r.group for r in records} == {"g"}
    assert sorted(r.outcome for r in records) == ["ok", "rollout_failed"]
    [failed] = [sample for sample, r in zip(worker.put, records, strict=True) if r.outcome != "ok"]
    assert failed.extra_fields["thinkedit"]["reward"] is None
    assert sum(failed.as_dict()["response_mask"]) == 0
