"""The closed loop as an ordinary Gymnasium environment: `thinkedit/Edit-v0`, `thinkedit/EditStep-v0`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, SupportsFloat, TypeVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.error import ClosedEnvironmentError

from thinkedit.background import BackgroundLoop
from thinkedit.configs.schema import Config, EpisodeConfig
from thinkedit.envs.build import Parts
from thinkedit.envs.editors.base import Editor
from thinkedit.envs.protocol import Protocol
from thinkedit.envs.render import contact_sheet
from thinkedit.envs.session import EditSession, Plan
from thinkedit.envs.spaces import ImageSpace, UnicodeText
from thinkedit.envs.tasks import TaskSource
from thinkedit.errors import ConfigError, DataError, ServiceError, UnknownName
from thinkedit.rewards.judges.base import Judge
from thinkedit.rewards.limits.meter import Gate
from thinkedit.rewards.rubric import Rubric
from thinkedit.types import Episode, Scores, StoredState, Task, Turn, Verdict

START_ATTEMPTS = 3  # tasks drawn in a row before a dead editor or judge is an error of reset
RESET_OPTIONS = ("task", "state", "index", "source", "instruction", "editor_seed")
_ANY_INDEX = 2**31  # of an endless task source

Info = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EnvSetup:
    """What one environment and a batch of them have in common.

    parts: editor, judge, rubric, protocol and tasks.
    own: those of editor and judge that `close` closes.
    split: where tasks are drawn from.
    states: stored states to draw from instead of tasks.
    max_pixels: largest image, which sizes the workers' shared memory.
    """

    parts: Parts
    own: Sequence[Editor | Judge]
    split: str
    states: Sequence[StoredState] | None
    max_pixels: int

    @classmethod
    def make(
        cls,
        config: str | Config = "demo",
        overrides: Sequence[str] = (),
        *,
        tasks: TaskSource | None = None,
        editor: Editor | None = None,
        judge: Judge | None = None,
        rubric: Rubric | None = None,
        protocol: Protocol | None = None,
        episode: EpisodeConfig | None = None,
        max_turns: int | None = None,
        split: str = "train",
        states: Sequence[StoredState] | None = None,
        max_pixels: int = 2048 * 2048,
        gate: Gate | None = None,
    ) -> EnvSetup:
        """Parts from a recipe, with objects in the place of what the recipe names; that is then not built.

        Args:
            gate: see `Parts.from_config`.

        Raises:
            ConfigError, UnknownName: see `load_config`.
        """
        if isinstance(config, str):
            from thinkedit.configs.load import load_config

            config = load_config(config, overrides)
        elif overrides:
            raise ConfigError("overrides go with a recipe's name; change the Config object instead")
        episode = episode or config.episode
        if max_turns is not None:
            episode = replace(episode, max_turns=max_turns)
        if states is not None and not states:
            raise ConfigError("states: at least one stored state is needed to draw from")
        parts = Parts.from_config(
            replace(config, episode=episode),
            gate,
            tasks=tasks,
            editor=editor,
            judge=judge,
            rubric=rubric,
            protocol=protocol,
        )
        own = [part for part, given in ((parts.editor, editor), (parts.judge, judge)) if given is None]
        return cls(parts=parts, own=own, split=split, states=states, max_pixels=max_pixels)

    def close(self) -> None:
        """Close what was built here; an editor or judge that was handed in stays its owner's."""
        for part in self.own:
            part.close()
        if self.parts.gate is not None:
            self.parts.gate.flush()

    def observation_space(self) -> spaces.Dict:
        turns = self.parts.config.episode.max_turns
        return spaces.Dict(
            {
                "source": ImageSpace(self.max_pixels),
                "edited": ImageSpace(self.max_pixels),
                "instruction": UnicodeText(),
                "prompt": UnicodeText(),
                "turn": spaces.Discrete(turns + 1),
                "turns_left": spaces.Discrete(turns + 1),
            }
        )

    def action_space(self) -> UnicodeText:
        return UnicodeText(max_chars=100_000)

    def begin(
        self,
        session: EditSession,
        rng: np.random.Generator,
        options: Mapping[str, Any],
        failed: Callable[[Episode], object],
    ) -> Plan[None]:
        """Start an episode as a plan: what `options` asks for, else a task drawn with `rng`.

        A drawn task whose first edit can't be made is handed to `failed`, and another is drawn. `rng` is
        drawn from equally often whatever fails, so that siblings meet again in their next episode.

        Raises:
            ServiceError: the asked-for start, or START_ATTEMPTS drawn ones in a row, failed.
        """
        for option in options:
            if option not in RESET_OPTIONS:
                raise UnknownName("reset option", str(option), RESET_OPTIONS)
        asked = self._asked(options)
        for attempt in range(1, START_ATTEMPTS + 1):
            start = asked or self._draw(rng)
            drawn = int(rng.integers(2**31))
            self._check_size(start)
            try:
                yield from session.start_plan(start, int(options.get("editor_seed", drawn)))
            except ServiceError:
                failed(session.episode())
                if asked is not None or attempt == START_ATTEMPTS:
                    raise
                rng = np.random.default_rng(drawn)
            else:
                return

    def _asked(self, options: Mapping[str, Any]) -> Task | StoredState | None:
        starts = {"source" if option == "instruction" else option for option in options} - {"editor_seed"}
        if len(starts) > 1:
            raise ConfigError(f"reset options {sorted(starts)} each name a start: give one of them")
        if "state" in options:
            return _of_type(options["state"], StoredState, "state")
        if "task" in options:
            return _of_type(options["task"], Task, "task")
        if "index" in options:
            return self.parts.tasks.start(self.split, int(options["index"]))
        if "source" in options or "instruction" in options:
            if not ("source" in options and "instruction" in options):
                raise ConfigError("reset options 'source' and 'instruction' go together")
            source, instruction = np.asarray(options["source"]), str(options["instruction"])
            digest = hashlib.sha256(source.tobytes() + instruction.encode("utf-8", "surrogatepass"))
            return Task(uid=digest.hexdigest()[:16], source=source, instruction=instruction, split="user")
        return None

    def _draw(self, rng: np.random.Generator) -> Task | StoredState:
        if self.states is not None:
            return self.states[int(rng.integers(len(self.states)))]
        size = self.parts.tasks.size(self.split)
        if size == 0:
            raise DataError(f"split {self.split!r} of the task source is empty")
        return self.parts.tasks.start(self.split, int(rng.integers(size or _ANY_INDEX)))

    def _check_size(self, start: Task | StoredState) -> None:
        task = start.task if isinstance(start, StoredState) else start
        pixels = int(np.prod(task.source.shape[:2]))
        if pixels > self.max_pixels:
            raise DataError(
                f"task {task.uid!r}: a source of {pixels} pixels is larger than max_pixels={self.max_pixels}"
            )


def observe(session: EditSession) -> dict[str, Any]:
    """The session's observation as Gymnasium values; the images are copies."""
    seen = session.observation
    return {
        "source": seen.source.copy(),
        "edited": seen.edited.copy(),
        "instruction": seen.instruction,
        "prompt": seen.prompt,
        "turn": np.int64(seen.turn),
        "turns_left": np.int64(seen.turns_left),
    }


def start_info(session: EditSession) -> Info:
    """`info` of a reset: which task, how its current edit was judged, and by whom."""
    return {"valid": True, "outcome": "ok", **_identity(session), "scores": _scores(session.verdict)}


def turn_info(session: EditSession, turn: Turn) -> Info:
    """`info` of a step: outcome, reward terms, scores and identities. No times and no costs.

    Texts are empty and mappings hold fewer keys where there is nothing to tell.
    """
    reward = turn.reward
    return {
        "valid": turn.outcome.valid,
        "outcome": turn.outcome.value,
        "error": "" if turn.error is None else turn.error.value,
        "detail": turn.detail,
        "end": "" if turn.end is None else turn.end.value,
        "kept": turn.kept,
        "terms": {} if reward is None else dict(reward.terms),
        "weights": {} if reward is None else dict(reward.weights),
        "predicted": {} if turn.critique is None else _marks(turn.critique.scores),
        "scores_before": _scores(turn.before),
        "scores": {} if turn.after is None else _scores(turn.after),
        **_identity(session),
    }


def reward_of(turn: Turn) -> float:
    """The turn's reward; NaN, never a stand-in, when nobody could make or grade the edit."""
    return float("nan") if turn.reward is None else turn.reward.total


def _identity(session: EditSession) -> Info:
    task, verdict, editor = session.task, session.verdict, session.services.editor
    return {
        "task": task.uid,
        "task_type": task.task_type,
        "split": task.split,
        "group": f"{task.uid}/{session.seed}",
        "editor": f"{editor.name}@{editor.revision}",
        "editor_seed": session.seed,
        "judge": verdict.judge_id,
        "judge_prompt": verdict.prompt_hash,
        "state_key": session.state_key,
    }


def _scores(verdict: Verdict) -> dict[str, float]:
    return {**_marks(verdict.scores), "overall": float(verdict.scores.overall)}


def _marks(scores: Scores) -> dict[str, float]:
    return {"semantic": float(scores.semantic), "quality": float(scores.quality)}


def _of_type(value: object, kind: type[T], option: str) -> T:
    if not isinstance(value, kind):
        raise ConfigError(f"reset option {option!r} must be a {kind.__name__}, got {type(value).__name__}")
    return value


class ThinkEditEnv(gymnasium.Env[dict[str, Any], str]):
    """Observe source, current edit, instruction and prompt; act with a reply text.

    Any text is a legal action: a malformed reply earns 0 and uses up a turn. When editor or judge
    fail, the reward is NaN, `info["valid"]` is False, `info["outcome"]` says why, and the episode is
    truncated. Arguments are those of `EnvSetup.make`.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 1}  # type: ignore[misc]

    def __init__(
        self,
        config: str | Config = "demo",
        overrides: Sequence[str] = (),
        *,
        render_mode: str | None = None,
        **setup: Any,
    ) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise UnknownName("render mode", render_mode, self.metadata["render_modes"])
        self.setup = EnvSetup.make(config, overrides, **setup)
        self.session = self.setup.parts.session()
        self.render_mode = render_mode
        self.observation_space = self.setup.observation_space()
        self.action_space = self.setup.action_space()
        self.failed_starts: list[Episode] = []
        self._loop = BackgroundLoop("the environment", ClosedEnvironmentError)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], Info]:
        """Begin an episode.

        Args:
            options: one of `task` (a Task), `state` (a StoredState), `index` (of the split), or
                `source` with `instruction`; and `editor_seed`. Without them a task is drawn.

        Raises:
            ServiceError: the first edit could not be made or judged; see `failed_starts`.
        """
        super().reset(seed=seed)
        self.failed_starts = []
        plan = self.setup.begin(self.session, self.np_random, options or {}, self.failed_starts.append)
        self._loop.run(self.session.drive(plan))
        return observe(self.session), start_info(self.session)

    def step(self, action: str) -> tuple[dict[str, Any], SupportsFloat, bool, bool, Info]:
        """One turn; see the class for what a failure looks like."""
        turn = self._loop.run(self.session.step(action))
        info = turn_info(self.session, turn)
        return observe(self.session), reward_of(turn), turn.terminated, turn.truncated, info

    def render(self) -> Any:
        """A contact sheet of the episode so far, uint8 (H, W, 3)."""
        return contact_sheet(self.session) if self.render_mode == "rgb_array" else None

    def episode(self, **names: Any) -> Episode:
        """The episode so far; see `EditSession.episode`."""
        return self.session.episode(**names)

    def close(self) -> None:
        """Close what the environment built, and its event loop. May be called twice."""
        self._loop.close()
        self.setup.close()
