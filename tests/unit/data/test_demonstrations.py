"""Demonstrations are played until each file has what it should, and no two files share one."""

import asyncio
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from thinkedit.actors.policy import ScriptedPolicy
from thinkedit.configs.load import load_config
from thinkedit.data import demonstrations
from thinkedit.data.demonstrations import write_demonstrations
from thinkedit.envs.build import Parts
from thinkedit.envs.editors.base import Editor
from thinkedit.envs.editors.procedural import ProceduralEditor
from thinkedit.envs.world.experts import NaiveExpert
from thinkedit.errors import DataError, EditorError
from thinkedit.types import RGB


def write(folder: Path, *counts: int, editor: Editor | None = None) -> list[list[dict[str, object]]]:
    files = {folder / f"{place}.parquet": count for place, count in enumerate(counts)}
    with closing(Parts.from_config(load_config("demo"))) as parts:
        parts = replace(parts, editor=editor or parts.editor)
        asyncio.run(
            write_demonstrations(
                files,
                tasks=parts.tasks,
                split="sft",
                make_session=parts.session,
                expert=ScriptedPolicy(NaiveExpert.from_parts(parts), seed=0),
                protocol=parts.protocol,
            )
        )
    assert not list(folder.glob("*.partial"))
    return [pq.read_table(file).to_pylist() for file in files]


def test_files_have_their_counts_and_share_no_example(tmp_path: Path) -> None:
    first, second = write(tmp_path, 21, 10)
    assert (len(first), len(second)) == (21, 10)
    seen = {(row["task_uid"], row["turn"]) for row in first}
    assert len(seen) == 21
    assert seen.isdisjoint((row["task_uid"], row["turn"]) for row in second)


def test_what_follows_changes_nothing_before_it(tmp_path: Path) -> None:
    (alone,) = write(tmp_path / "alone", 21)
    first, _ = write(tmp_path / "followed", 21, 10)
    assert first == alone


class Dead(Editor):
    name, inline = "dead", True

    def edit(self, source: RGB, prompt: str, *, seed: int) -> RGB:
        raise EditorError("out of order")


class Hiccup(ProceduralEditor):
    """Fails at the first few episodes, for example while its server starts."""

    def __init__(self) -> None:
        super().__init__()
        self._left = demonstrations.FRUITLESS - 1

    def edit(self, source: RGB, prompt: str, *, seed: int) -> RGB:
        self._left -= 1
        if self._left >= 0:
            raise EditorError("out of order")
        return super().edit(source, prompt, seed=seed)


@pytest.mark.parametrize("count", [1, 40])
def test_a_dead_editor_ends_it_and_says_how_the_episodes_ended(tmp_path: Path, count: int) -> None:
    with pytest.raises(DataError, match=rf"0\.parquet: {max(count, 16)} episodes in a row.*editor_failed"):
        write(tmp_path, count, editor=Dead())
    assert not list(tmp_path.glob("*.parquet"))


def test_a_few_failures_are_played_over(tmp_path: Path) -> None:
    (rows,) = write(tmp_path, 1, editor=Hiccup())
    assert len(rows) == 1
