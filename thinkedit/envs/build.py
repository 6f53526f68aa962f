"""From a configuration to the working parts of an environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from thinkedit import plugins
from thinkedit.configs.schema import Config
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
    def from_config(cls, config: Config, gate: Gate | None = None) -> Self:
        """Build every part; nothing connects before its first use.

        Args:
            gate: a limiter shared with other processes; None makes one for this process, if
                `config.limits` asks for any.

        Raises:
            ConfigError, UnknownName: a plug-in, option or value that nobody knows.
            DataError, OSError: the run's ledger can't be read or written.
        """
        if gate is None and is_metered(config.limits):
            gate = Limiter(config.limits, Path(config.run_dir) / LEDGER)
        parts = cls(
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
            gate=gate,
        )
        parts.use_gate(parts.editor, parts.judge)
        return parts

    def use_gate(self, editor: Editor | None, judge: Judge | None) -> None:
        """Have the calls of this editor and judge ask at the gate, if there is one."""
        if self.gate is not None and editor is not None:
            editor.use_meter(Meter(self.gate, "editor", self.config.editor.timeout_s))
        if self.gate is not None and judge is not None:
            judge.use_meter(Meter(self.gate, "judge", self.config.judge.timeout_s))

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
