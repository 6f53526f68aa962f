"""Demonstrations are played until each file has what it should, and no two files share one."""

import asyncio
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq

from thinkedit.actors.policy import ScriptedPolicy
from thinkedit.configs.load import load_config
from thinkedit.data.demonstrations import write_demonstrations
from thinkedit.envs.build import Parts
from thinkedit.envs.world.experts import NaiveExpert


def write(folder: Path, *counts: int) -> list[list[dict[str, object]]]:
    files = {folder / f"{place}.parquet": count for place, count in enumerate(counts)}
    with closing(Parts.from_config(load_config("demo"))) as parts:
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
