"""From a configuration to the working parts of an environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from thinkedit import plugins
from thinkedit.configs.schema import Config
from thinkedit.envs.editors.base import Editor
from thinkedit.envs.editors.cache import CachedEditor, CachedJudge
from thinkedit.envs.protocol import Protocol
from thinkedit.envs.session import EditSession
from thinkedit.envs.tasks import TaskSource
from thinkedit.rewards.judges.base import Judge
from thinkedit.rewards.rubric import Rubric


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """Everything an episode needs; shared by all sessions of a process."""

    config: Config
    tasks: TaskSource
    editor: Editor
    judge: Judge
    rubric: Rubric
    protocol: Protocol

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Build every part; nothing connects before its first use.

        Raises:
            ConfigError, UnknownName: a plug-in, option or value that nobody knows.
        """
        return cls(
            config=config,
            tasks=plugins.build("tasks", config.tasks.name, config.tasks.options),
            editor=CachedEditor(
                plugins.build("editors", config.editor.name, config.editor.options),
                config.editor.cache_dir,
                disk_bytes=round(config.editor.cache_gib * 2**30),
            ),
            judge=CachedJudge(
                plugins.build("judges", config.judge.name, config.judge.options),
                config.judge.cache_dir,
                disk_bytes=round(config.judge.cache_gib * 2**30),
            ),
            rubric=Rubric.from_config(config.reward),
            protocol=Protocol(config.protocol, accept_at=config.episode.accept_at),
        )

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
        """Close editor and judge; may be called twice."""
        self.editor.close()
        self.judge.close()
