"""Small real editors and a judge for tests of the session and the environments.

They work on any picture: a prompt that names a colour paints the left half in it; the judge
counts how far the left half is that colour.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import numpy as np

from thinkedit.actors.play import Context, Reply
from thinkedit.configs.schema import EpisodeConfig, RewardConfig
from thinkedit.envs.editors.base import Editor
from thinkedit.envs.protocol import Protocol
from thinkedit.envs.session import EditSession
from thinkedit.rewards.judges.base import Judge
from thinkedit.rewards.rubric import Rubric
from thinkedit.types import RGB, Observation, Scores, Task, Verdict

COLOURS = {"red": (220, 30, 30), "green": (30, 160, 60), "blue": (30, 60, 220)}
RUBRIC = Rubric.from_config(RewardConfig())


class HalfPainter(Editor):
    """Paints the left half; "half" in the prompt does only half of that. `calls` is a record."""

    name = "half-painter"
    inline = True

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.closed = 0

    def edit(self, source: RGB, prompt: str, *, seed: int) -> RGB:
        self.calls.append((prompt, seed))
        image = source.copy()
        for word in prompt.casefold().split():
            if word in COLOURS:
                image[:, : source.shape[1] // (4 if "badly" in prompt else 2)] = COLOURS[word]
        return image

    def close(self) -> None:
        self.closed += 1


class HalfJudge(Judge):
    """Semantic: the share of the left half in the colour asked for. Quality: always 9."""

    name = "half-judge"
    inline = True

    def __init__(self) -> None:
        self.calls: list[str] = []

    def judge(self, source: RGB, edited: RGB, instruction: str) -> Verdict:
        self.calls.append(instruction)
        left = edited[:, : edited.shape[1] // 2]
        wanted = [rgb for word, rgb in COLOURS.items() if word in instruction.casefold().split()]
        share = float((left == wanted[0]).all(axis=2).mean()) if wanted else 0.0
        return Verdict(scores=Scores(10 * share, 9.0), judge_id="half-judge@1", prompt_hash="none")


class Broken(HalfPainter):
    """An editor or a judge whose call does whatever the test says, from its second call on."""

    def __init__(self, fault: Callable[[RGB], object], good: int = 1) -> None:
        super().__init__()
        self._fault, self._good = fault, good

    def edit(self, source: RGB, prompt: str, *, seed: int) -> RGB:
        image = super().edit(source, prompt, seed=seed)
        return image if len(self.calls) <= self._good else self._fault(image)  # type: ignore[return-value]


class BrokenJudge(HalfJudge):
    def __init__(self, fault: Callable[[Verdict], object], good: int = 1) -> None:
        super().__init__()
        self._fault, self._good = fault, good

    def judge(self, source: RGB, edited: RGB, instruction: str) -> Verdict:
        verdict = super().judge(source, edited, instruction)
        return verdict if len(self.calls) <= self._good else self._fault(verdict)  # type: ignore[return-value]


class SlowPainter(HalfPainter):
    """Paints in a thread, and takes its time from the second call on."""

    inline = False

    def edit(self, source: RGB, prompt: str, *, seed: int) -> RGB:
        image = super().edit(source, prompt, seed=seed)
        if len(self.calls) > 1:
            time.sleep(0.5)
        return image


def raising(error: BaseException) -> Callable[[object], object]:
    def fault(_: object) -> object:
        raise error

    return fault


def task(instruction: str = "make the left half red", side: int = 8, uid: str = "t0") -> Task:
    rng = np.random.default_rng(side)
    return Task(
        uid=uid, source=rng.integers(0, 256, (side, side + 4, 3), dtype=np.uint8), instruction=instruction
    )


def reply(answer: str, semantic: float = 3, quality: float = 5, think: str = "dull") -> str:
    scores = json.dumps({"semantic": semantic, "quality": quality})
    return f"<think>{think}</think>\n<score>{scores}</score>\n<answer>{answer}</answer>"


class Insists:
    """A policy that never accepts and words each prompt anew."""

    async def reply(self, observation: Observation, context: Context) -> Reply:
        return Reply(reply(f"{observation.instruction}, please, for the {observation.turn + 2}. time"))


def session(
    editor: Editor | None = None, judge: Judge | None = None, max_turns: int = 3, **timeouts: float
) -> EditSession:
    return EditSession(
        editor or HalfPainter(),
        judge or HalfJudge(),
        RUBRIC,
        Protocol(),
        EpisodeConfig(max_turns=max_turns),
        **timeouts,
    )
