"""From a configuration to the working parts of an environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from thinkedit import plugins
from thinkedit.configs.schema import Config, ServiceConfig
from thinkedit.envs.editors.base import Editor
from thinkedit.envs.editors.cache import CachedEditor, CachedJudge
from thinkedit.envs.protocol import Protocol
from thinkedit.envs.session import EditSession
from thinkedit.envs.tasks import TaskSource
from thinkedit.rewards.judges.base import Judge
from thinkedit.rewards.limits.ledger import LEDGER
from thinkedit.rewards.limits.limiter import Limiter, is_metered
from thinkedit.rewards.limits.meter import Gate, Meter
from thinkedit.rewards.rubric import Rubric


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """Everything an episode needs; shared by all sessions of a process.

    gate: where paid calls ask; None where nothing is limited or priced.
    """

    config: Config
    tasks: TaskSource
    editor: Editor
    judge: Judge
    rubric: Rubric
    protocol: Protocol
    gate: Gate | None = None

    @classmethod
    def from_config(
        cls,
        config: Config,
        gate: Gate | None = None,
        *,
        tasks: TaskSource | None = None,
        editor: Editor | None = None,
        judge: Judge | None = None,
        rubric: Rubric | None = None,
        protocol: Protocol | None = None,
    ) -> Self:
        """Build every part that isn't given; nothing connects before its first use.

        Args:
            gate: a limiter shared with other processes; None makes one for this process, if
                `config.limits` asks for any.
            tasks, editor, judge, rubric, protocol: in the place of what the config names, which then may be
                something that is not installed here. An editor or judge is cached, in memory, unless it is.

        Raises:
            ConfigError, UnknownName: a plug-in, option or value that nobody knows.
            DataError, OSError: the run's ledger can't be read or written.
        """
        if gate is None and is_metered(config.limits):
            gate = Limiter(config.limits, Path(config.run_dir) / LEDGER)
        parts = cls(
            config=config,
            tasks=tasks or plugins.build("tasks", config.tasks.name, config.tasks.options),
            editor=_cached_editor(config.editor, editor),
            judge=_cached_judge(config.judge, judge),
            rubric=rubric or Rubric.from_config(config.reward),
            protocol=protocol or Protocol(config.protocol, accept_at=config.episode.accept_at),
            gate=gate,
        )
        if gate is not None:
            parts.editor.use_meter(Meter(gate, "editor", config.editor.timeout_s))
            parts.judge.use_meter(Meter(gate, "judge", config.judge.timeout_s))
        return parts

    def session(self) -> EditSession:
        """A fresh session over the shared parts."""
        return EditSession(
            self.editor,
            self.judge,
            self.rubric,
            self.protocol,
            self.config.episode,
            edit_timeout_s=self.config.editor.timeout_s,
            judge_timeout_s=self.config.judge.timeout_s,
        )

    def close(self) -> None:
        """Close editor and judge, and write the ledger; may be called twice."""
        self.editor.close()
        self.judge.close()
        if self.gate is not None:
            self.gate.flush()


def _cached_editor(config: ServiceConfig, given: Editor | None) -> Editor:
    """Cached, so that siblings' equal edits are made once, also within one batch."""
    if given is not None:
        return given if isinstance(given, CachedEditor) else CachedEditor(given)
    editor = plugins.build("editors", config.name, config.options)
    return CachedEditor(editor, config.cache_dir, disk_bytes=round(config.cache_gib * 2**30))


def _cached_judge(config: ServiceConfig, given: Judge | None) -> Judge:
    if given is not None:
        return given if isinstance(given, CachedJudge) else CachedJudge(given)
    judge = plugins.build("judges", config.name, config.options)
    return CachedJudge(judge, config.cache_dir, disk_bytes=round(config.cache_gib * 2**30))
