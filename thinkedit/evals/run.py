"""The run folder: where everything a run leaves lies, and how to read it. See docs/run-folder.md."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thinkedit.actors.store import TrajectoryStore
from thinkedit.configs.load import RESOLVED, load_config
from thinkedit.configs.schema import Config
from thinkedit.errors import DataError
from thinkedit.rewards.limits.ledger import LEDGER

ARM_LABELS = {
    "single_edit": "Single edit",
    "base": "Base thinker",
    "naive_expert": "Naive expert",
    "sft": "SFT",
    "grpo": "SFT + GRPO",
    "aware_expert": "Aware expert",
}
"""The arms we know, from worst informed to best; others follow in alphabetical order."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths and readers of one run. Building one touches no file."""

    root: Path

    @property
    def trajectories(self) -> Path:
        """Store of the episodes that GRPO trained on."""
        return self.root / "grpo" / "trajectories"

    @property
    def evaluation(self) -> Path:
        """One store of held-out episodes per arm, in a folder of the arm's name."""
        return self.root / "evaluation"

    def metrics(self, phase: str) -> Path:
        """A line of JSON per step of a phase ("sft", "grpo"): {"step": 7, "actor/kl_loss": 0.1, …}."""
        return self.root / phase / "metrics.jsonl"

    @property
    def phases(self) -> Path:
        return self.root / "phases.json"

    @property
    def ledger(self) -> Path:
        """What the run's metered calls cost, over all its starts; read with `read_ledger`."""
        return self.root / LEDGER

    @property
    def summary(self) -> Path:
        return self.root / "summary.json"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    def config(self) -> Config:
        """The resolved configuration that the run was started with.

        Raises:
            DataError: there is none, so this is no run folder.
        """
        if not (self.root / RESOLVED).is_file():
            raise DataError(f"{self.root} is no run folder: it has no {RESOLVED}")
        return load_config(self.root / RESOLVED)

    def arm(self, name: str) -> Path:
        return self.evaluation / name

    def arms(self) -> dict[str, TrajectoryStore]:
        """Finished evaluation arms in table order."""
        found = {path.name for path in self.evaluation.glob("*") if any(path.glob("episodes-*.parquet"))}
        found = {name for name in found if not name.endswith(".partial")}
        known = [name for name in ARM_LABELS if name in found]
        return {name: TrajectoryStore(self.arm(name)) for name in [*known, *sorted(found - set(known))]}

    def steps(self, phase: str) -> list[dict[str, Any]]:
        """Metrics of one phase, a mapping per step with "step" in it, in order of steps.

        A run that resumed from a checkpoint has some steps twice; the later line wins.
        """
        file = self.metrics(phase)
        merged = dict(_read_jsonl(file)) if file.is_file() else {}
        return [{"step": step} | merged[step] for step in sorted(merged)]

    def seconds(self) -> dict[str, float]:
        """Wall seconds by phase of the run, in the order the phases ran."""
        if not self.phases.is_file():
            return {}
        return dict(json.loads(self.phases.read_text()))

    def add_seconds(self, phase: str, seconds: float) -> None:
        """Add wall time to a phase; a phase that was resumed adds up."""
        known = self.seconds()
        known[phase] = known.get(phase, 0.0) + seconds
        write_json(self.phases, known)


def label(arm: str) -> str:
    return ARM_LABELS.get(arm, arm)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write strict JSON (NaN and infinity become null) that appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    part.write_text(json.dumps(_finite(value), indent=2, allow_nan=False) + "\n")
    part.replace(path)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _read_jsonl(path: Path) -> list[tuple[int, dict[str, Any]]]:
    lines = path.read_text().splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            # verl's own file logger keeps the figures one level down.
            records.append((int(record.pop("step")), dict(record.get("data", record))))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if number == len(lines):
                break  # a writer that was killed, or is at work, leaves half a last line
            raise DataError(
                f'{path}, line {number}: not {{"step": n, "name": value, …}} ({error})'
            ) from error
    return records
