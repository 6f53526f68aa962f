"""Training rollouts: verl's agent loop around the one episode loop.

Each worker process builds the environment's parts once. An episode is one coroutine; it becomes
one verl sample per turn, each with its own prompt, reward, terms, outcome and policy version.
Pictures are made here, from the task's index, and never pass through the driver.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import uuid
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput
from vllm.sampling_params import RequestOutputKind

from thinkedit.actors.limits import cluster_limiter
from thinkedit.actors.play import Context, Reply, play
from thinkedit.actors.store import TrajectoryStore
from thinkedit.configs.load import load_config
from thinkedit.envs.build import Parts
from thinkedit.errors import ThinkEditError
from thinkedit.pixels import within_pixels
from thinkedit.rewards.judges.guarded import FLAGS
from thinkedit.types import RGB, Episode, Observation, Outcome, Sampling, StoredState, Task, Turn

EXTRA_FIELD = "thinkedit"  # the learner reads it back (learner/samples.py)
FEATURES = "features"  # a prompt's processed pictures, on their way to the worker
SCORE_END = "</score>"
PROMPTS_KEPT = STARTS_KEPT = 64  # enough for the groups that a worker has under way


class TurnSample(AgentLoopOutput):  # type: ignore[misc]  # verl is untyped
    """One turn as verl takes it.

    verl's agent-loop worker copies the last output's reward to every output of an episode and then
    calls `as_dict`: the turn's own reward is put back here. A turn without a reward gets an empty
    response mask, so that it is in no loss and in no statistic.
    """

    def as_dict(self) -> dict[str, Any]:
        record = self.extra_fields[EXTRA_FIELD]
        valid = record["reward"] is not None
        self.reward_score = float(record["reward"]) if valid else 0.0
        sample: dict[str, Any] = super().as_dict()
        if not valid:
            sample["response_mask"] = sample["response_mask"] * 0
        return sample


@dataclass(frozen=True, slots=True, eq=False)
class Studio:
    """What all episodes of a worker process share."""

    parts: Parts
    store: TrajectoryStore
    held_out: TrajectoryStore  # what validation plays: never among the episodes that are trained on
    start: Callable[[str, int], Task | StoredState]


_studios: dict[tuple[str, str], Studio] = {}


def studio(config_path: str, trajectories: str) -> Studio:
    """This process's parts for one run; built on the first episode."""
    key = (config_path, trajectories)
    if key not in _studios:
        config = load_config(config_path)
        parts = Parts.from_config(config, cluster_limiter(config))
        writer = f"rollout-{uuid.uuid4().hex[:6]}"
        _studios[key] = Studio(
            parts,
            TrajectoryStore(trajectories, writer=writer),
            TrajectoryStore(Path(trajectories).with_name("validation"), writer=writer),
            lru_cache(maxsize=STARTS_KEPT)(parts.tasks.start),
        )
    return _studios[key]


def flush_stores() -> None:
    """Write every finished episode of this process to disk, and what its calls cost."""
    for one in _studios.values():
        one.store.flush()
        one.held_out.flush()
        if one.parts.gate is not None:
            one.parts.gate.flush()


def editor_seed(task_uid: str, step: int) -> int:
    """One seed for all siblings of a task at a step, whatever their place in the batch."""
    digest = hashlib.blake2b(f"{task_uid}/{step}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """An observation as the policy reads it: token ids, pictures, and the processor's tensors of them."""

    ids: list[int]
    images: list[Image.Image]
    features: dict[str, Any]


class ServedPolicy:
    """Asks verl's vLLM servers for replies and keeps how each was sampled."""

    def __init__(self, loop: EditLoop, sampling: Mapping[str, Any]) -> None:
        self._loop, self._sampling = loop, dict(sampling)
        self.extra_fields: list[dict[str, Any]] = []
        self.prompts: list[Prompt] = []

    async def reply(self, observation: Observation, context: Context) -> Reply:
        prompt = await self._loop.prompt(observation)
        limit = self._loop.studio.parts.config.policy.max_prompt_tokens
        if len(prompt.ids) > limit:  # the engine would shorten the reply instead, and call it finished
            raise RolloutError(
                f"a prompt of {len(prompt.ids)} tokens is longer than policy.max_prompt_tokens ({limit}): "
                "raise that, or lower policy.max_pixels"
            )
        output = await self._loop.server_manager.generate(
            request_id=uuid.uuid4().hex,
            prompt_ids=prompt.ids,
            image_data=prompt.images,
            sampling_params={
                **self._sampling,
                "max_tokens": self._loop.studio.parts.config.policy.max_reply_tokens,
                # One answer per reply instead of one per token, and its text is made here.
                "output_kind": RequestOutputKind.FINAL_ONLY,
                "detokenize": False,
            },
        )
        if not output.token_ids:
            raise RolloutError(f"the rollout engine gave no token (stop reason {output.stop_reason!r})")
        token_ids = list(output.token_ids)
        self.extra_fields.append(dict(output.extra_fields))
        self.prompts.append(prompt)
        sampling = Sampling(
            prompt_ids=tuple(prompt.ids),
            token_ids=tuple(token_ids),
            logprobs=tuple(output.log_probs or ()),
            policy_version=_version(output.extra_fields),
        )
        return Reply(self._loop.text_of(token_ids), sampling)


class RolloutError(ThinkEditError):
    """The policy could not be asked, or its server failed; no fault of editor, judge or reply."""


class EditLoop(AgentLoopBase):  # type: ignore[misc]  # verl is untyped
    """verl instantiates one per episode (entry `thinkedit` of the run's agent.yaml)."""

    def __init__(self, *, config_path: str, trajectories: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.studio = studio(config_path, trajectories)
        self._prompts: OrderedDict[bytes, asyncio.Task[Prompt]] = OrderedDict()

    async def prompt(self, observation: Observation) -> Prompt:
        """The observation's prompt; made once for siblings that face the same one."""
        protocol = self.studio.parts.protocol
        pictures = protocol.images(observation)
        key = hashlib.blake2b(protocol.render_text(observation).encode("utf-8", "surrogatepass"))
        for picture in pictures:
            key.update(repr(picture.shape).encode())
            key.update(picture.tobytes())
        digest = key.digest()
        if digest not in self._prompts:
            self._prompts[digest] = asyncio.ensure_future(self._build_prompt(observation, pictures))
            if len(self._prompts) > PROMPTS_KEPT:
                self._prompts.popitem(last=False)
        return await self._prompts[digest]

    async def _build_prompt(self, observation: Observation, pictures: Sequence[RGB]) -> Prompt:
        policy = self.studio.parts.config.policy
        bounds = policy.min_pixels, policy.max_pixels
        images = [within_pixels(Image.fromarray(picture), *bounds) for picture in pictures]
        features: dict[str, Any] = {}
        ids = await self.ct_build_initial_tokens(
            self.studio.parts.protocol.messages(observation), images=images, mm_inputs_out=features
        )
        return Prompt(ids, images, features)

    def text_of(self, token_ids: Sequence[int]) -> str:
        """The reply's text: all tokens but the one that ends the turn."""
        eos = self.tokenizer.eos_token_id
        body = token_ids[:-1] if token_ids[-1] == eos else token_ids
        text: str = self.tokenizer.decode(body, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    async def run(self, sampling_params: dict[str, Any], **row: Any) -> list[TurnSample]:
        """One episode. `row` is the dataset's row with verl's uid, session and step."""
        step, group = int(row["global_steps"]), str(row["uid"])
        held_out = str(row["split"]) != "train"
        start = self.studio.start(str(row["split"]), int(row["index"]))
        task = start.task if isinstance(start, StoredState) else start
        policy = ServedPolicy(self, sampling_params)
        # Held-out tasks are the same at every look, luck of the editor included.
        seed = editor_seed(task.uid, 0 if held_out else step)
        episode = await play(self.studio.parts.session(), start, seed, policy, group=group, step=step)
        (self.studio.held_out if held_out else self.studio.store).append(episode)
        return self._samples(episode, policy, task)

    def _samples(self, episode: Episode, policy: ServedPolicy, task: Task) -> list[TurnSample]:
        samples = []
        for place, turn in enumerate(episode.turns):
            sampling = episode.sampling[place]
            settled = 0.0 if turn.reward is None else self.studio.parts.rubric.settled(turn.reward)
            tokens = sampling.token_ids
            malformed = turn.critique is None
            answer_from = len(tokens) if malformed else first_after_score(self.tokenizer.decode, tokens)
            record = turn_record(episode, turn, sampling, settled, answer_from)
            samples.append(
                TurnSample(
                    prompt_ids=list(sampling.prompt_ids),
                    response_ids=list(sampling.token_ids),
                    response_mask=[1] * len(sampling.token_ids),
                    response_logprobs=list(sampling.logprobs),
                    multi_modal_data={FEATURES: policy.prompts[place].features},
                    reward_score=0.0,  # as_dict sets the turn's own
                    num_turns=turn.index + 1,
                    metrics=AgentLoopMetrics(),
                    # The generator's own fields hold the policy versions that verl's staleness needs.
                    extra_fields={**policy.extra_fields[place], **_extra(record)},
                )
            )
        return samples or [self._empty_sample(episode.group, episode.uid, episode.step, episode.outcome)]

    def failed_sample(self, **row: Any) -> TurnSample:
        """Stands for an episode that raised; `row` as in `run`."""
        return self._empty_sample(
            str(row["uid"]), uuid.uuid4().hex, int(row["global_steps"]), Outcome.ROLLOUT_FAILED
        )

    def _empty_sample(self, group: str, episode: str, step: int, outcome: Outcome) -> TurnSample:
        """Stands for an episode without turns: nothing to learn from, but counted."""
        eos = int(self.tokenizer.eos_token_id)
        record = {**_BLANK, "group": group, "episode": episode, "outcome": str(outcome)}
        version = {"global_steps": step, "min_global_steps": step, "max_global_steps": step}
        return TurnSample(
            prompt_ids=[eos, eos],
            response_ids=[eos],
            response_mask=[0],
            response_logprobs=[0.0],
            multi_modal_data={},
            reward_score=0.0,
            num_turns=0,
            metrics=AgentLoopMetrics(),
            extra_fields={**version, **_extra(record)},
        )


def first_after_score(decode: Callable[[list[int]], str], token_ids: Sequence[int]) -> int:
    """Index of the first token after those that close the score; the length where none do."""
    ids = list(token_ids)
    return bisect_left(range(len(ids)), True, key=lambda n: SCORE_END in decode(ids[:n]))


_BLANK: dict[str, Any] = {
    "turn": 0,
    "state_key": "",
    "reward": None,
    "terms": {},
    "before": None,
    "after": None,
    "flags": [],
    "kept": False,
    "final": True,
    "reply_tokens": 0,
    "policy_version": -1,
    "settled": 0.0,
    "answer_from": 0,
}


def turn_record(
    episode: Episode, turn: Turn, sampling: Sampling, settled: float, answer_from: int
) -> dict[str, Any]:
    """The learner's record of a turn, as plain data (`learner.samples.TurnRecord`)."""
    return {
        "group": episode.group,
        "episode": episode.uid,
        "turn": turn.index,
        "state_key": turn.state_key,
        "outcome": str(turn.outcome),
        "reward": None if turn.reward is None else float(turn.reward.total),
        "terms": {} if turn.reward is None else {k: float(v) for k, v in turn.reward.terms.items()},
        "before": float(turn.before.scores.overall),
        "after": None if turn.after is None else float(turn.after.scores.overall),
        "flags": _flags(turn),
        "kept": bool(turn.kept),
        "final": bool(turn.done),
        "reply_tokens": len(sampling.token_ids),
        "policy_version": sampling.policy_version,
        "settled": float(settled),
        "answer_from": answer_from,
    }


def _flags(turn: Turn) -> list[str]:
    """The judge's guards that this turn's new edit set off."""
    if turn.outcome is not Outcome.OK or turn.kept or turn.after is None:
        return []
    return [str(flag) for flag in turn.after.notes.get(FLAGS, ())]


def _extra(record: dict[str, Any]) -> dict[str, Any]:
    # verl's worker asks for reward_extra_info on the last output; its validation reads numbers there.
    # NaN, not 0: a turn that nobody could grade must not pass for a bad one there either.
    reward = math.nan if record["reward"] is None else record["reward"]
    numbers = {"reward": reward, "valid": float(record["reward"] is not None)}
    return {EXTRA_FIELD: record, "reward_extra_info": numbers}


def _version(extra_fields: Mapping[str, Any]) -> int:
    version = extra_fields.get("global_steps")
    return -1 if version is None else int(np.asarray(version).item())
