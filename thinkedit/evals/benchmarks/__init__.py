"""The benchmarks, each a module of its own over one runner, one store and one report."""

from __future__ import annotations

from pathlib import Path

from thinkedit.configs.schema import Config
from thinkedit.envs.tasks import TaskSource
from thinkedit.errors import ConfigError, UnknownName
from thinkedit.evals.benchmarks.base import Benchmark
from thinkedit.evals.benchmarks.gedit import GEdit
from thinkedit.evals.benchmarks.imgedit import ImgEdit
from thinkedit.evals.benchmarks.krisbench import KRISBench
from thinkedit.evals.benchmarks.risebench import RISEBench
from thinkedit.evals.benchmarks.world import World

FROM_FILES: dict[str, type[ImgEdit | GEdit | RISEBench | KRISBench]] = {
    kind.name: kind for kind in (ImgEdit, GEdit, RISEBench, KRISBench)
}
NAMES = (*FROM_FILES, World.name)


def open_benchmark(
    name: str, data: Path | None, config: Config, tasks: TaskSource, *, language: str | None = None
) -> Benchmark:
    """A benchmark with its items; pictures are read when they are needed.

    Args:
        data: where its files lie; None for the built-in world, whose tasks are `tasks`.
        language: of GEdit-Bench, which has two; None takes both.

    Raises:
        UnknownName: no such benchmark or language.
        ConfigError: files where none are needed, or none where they are; a language where there is one.
        DataError: files that are not as they should be.
    """
    if language is not None and name in NAMES and name != GEdit.name:
        raise ConfigError(f"--language: {name} has one language; only {GEdit.name} has several")
    if name == World.name:
        if data is not None:
            raise ConfigError("the benchmark world makes its own pictures: leave --data out")
        if config.tasks.name != World.name:
            raise ConfigError(f"the benchmark world needs tasks=world, not {config.tasks.name!r}")
        return World(tasks, config.eval.tasks)
    if name not in FROM_FILES:
        raise UnknownName("benchmark", name, NAMES)
    kind = FROM_FILES[name]
    if data is None or not data.exists():
        given = "none was given" if data is None else f"there is no {data}"
        raise ConfigError(
            f"{kind.title} needs its files, --data PATH: {given}; docs/benchmarks.md says which"
        )
    return GEdit(data, language) if kind is GEdit else kind(data)
