"""States of a file as starts of episodes, in the published form and in ours."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from thinkedit import plugins
from thinkedit.configs.load import load_config
from thinkedit.data.stored import StoredTasks, StoredTasksConfig
from thinkedit.envs.build import Parts
from thinkedit.envs.tasks import TaskSource
from thinkedit.errors import ConfigError, DataError, JudgeMismatch, UnknownName

COUNT = 60


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An rl_train.jsonl over pictures of the built-in world."""
    folder = tmp_path_factory.mktemp("published")
    parts = Parts.from_config(load_config("demo"))
    lines = []
    for n in range(COUNT):
        task = parts.tasks.task("train", n // 2)  # two states of each source
        edited = parts.editor.edit(task.source, task.instruction, seed=n)
        for name, image in (("src", task.source), ("edit", edited)):
            path = folder / name / f"{n // 2 if name == 'src' else n}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(image).save(path)
        lines.append(
            json.dumps(
                {
                    "origin_prompt": task.instruction,
                    "rewritten_prompt": f"please {task.instruction}",
                    "origin_image_path": f"src/{n // 2}.png",
                    "edited_image_path": f"edit/{n}.png",
                    "evaluation": {"semantics": 1, "quality": 1},
                }
            )
        )
    path = folder / "rl_train.jsonl"
    path.write_text("\n".join(lines))
    return path


def stored(path: Path, **options: object) -> StoredTasks:
    return StoredTasks(StoredTasksConfig(path=str(path), **options))  # type: ignore[arg-type]


def test_it_is_found_by_name(published: Path) -> None:
    assert isinstance(plugins.build("tasks", "stored", {"path": str(published)}), TaskSource)


def test_the_published_file_gives_states(published: Path) -> None:
    tasks = stored(published, val_share=0.0, test_share=0.0)
    assert tasks.size("train") == COUNT
    state = tasks.start("train", 7)
    line = json.loads(published.read_text().splitlines()[7])
    assert state.task.uid == "rl_train/8"
    assert (state.task.instruction, state.prompt) == (line["origin_prompt"], line["rewritten_prompt"])
    assert np.array_equal(state.edited, np.asarray(Image.open(published.parent / "edit/7.png")))
    assert np.array_equal(state.task.source, np.asarray(Image.open(published.parent / "src/3.png")))
    assert state.verdict is None  # nobody knows who gave the scores


def test_splits_share_no_source(published: Path) -> None:
    tasks = stored(published, val_share=0.3, test_share=0.3)
    sources = {}
    for split in ("train", "val", "test", "sft"):
        found = (tasks.start(split, index).task.source.tobytes() for index in range(tasks.size(split)))
        sources[split] = set(found)
    assert sum(tasks.size(split) for split in sources) == COUNT
    assert min(len(sources[split]) for split in ("train", "val", "test")) > 3
    assert sources["sft"] == set()
    assert not sources["train"] & sources["val"]
    assert not sources["train"] & sources["test"]
    assert not sources["val"] & sources["test"]


def copies(published: Path, folder: Path, *numbers: int) -> Path:
    """Lines of the file, each with a copy of its source under another name."""
    folder.mkdir()
    lines = []
    for number in numbers:
        line = json.loads(published.read_text().splitlines()[number])
        shutil.copy(published.parent / line["origin_image_path"], folder / f"copy-{number}.png")
        edited = str(published.parent / line["edited_image_path"])
        lines.append(line | {"origin_image_path": f"copy-{number}.png", "edited_image_path": edited})
    path = folder / "copies.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_one_picture_under_two_names_is_in_one_split(published: Path, tmp_path: Path) -> None:
    path = copies(published, tmp_path / "copies", *(2 * n for n in range(COUNT // 2)))
    twice = tmp_path / "twice.jsonl"
    for line in (published, path):
        for row in map(json.loads, line.read_text().splitlines()):
            moved = {key: str(line.parent / row[key]) for key in ("origin_image_path", "edited_image_path")}
            with open(twice, "a") as file:
                file.write(json.dumps(row | moved) + "\n")
    tasks = stored(twice, val_share=0.3, test_share=0.3)
    homes: dict[bytes, set[str]] = {}
    for split in ("train", "val", "test"):
        for index in range(tasks.size(split)):
            homes.setdefault(tasks.task(split, index).source.tobytes(), set()).add(split)
    assert len(homes) == COUNT // 2
    assert all(len(splits) == 1 for splits in homes.values())


def test_validation_may_have_a_file_of_its_own(published: Path, tmp_path: Path) -> None:
    val = copies(published, tmp_path / "val", 0, 2)
    options = {"val_path": str(val), "val_share": 0.0}
    moved = copies(published, tmp_path / "moved", *range(4, 10))
    tasks = stored(moved, **options, test_share=0.0)
    assert (tasks.size("train"), tasks.size("val"), tasks.size("test")) == (6, 2, 0)
    assert tasks.uid("val", 1) == tasks.task("val", 1).uid == "copies/2"
    first = np.asarray(Image.open(published.parent / "src/0.png"))
    assert np.array_equal(tasks.start("val", 0).task.source, first)
    with pytest.raises(ConfigError, match="set val_share=0"):
        stored(moved, val_path=str(val))


def test_a_validation_picture_that_is_trained_on_is_refused(published: Path, tmp_path: Path) -> None:
    val = copies(published, tmp_path / "val", 7)  # of source 3, which the lines 7 and 8 show
    tasks = stored(published, val_path=str(val), val_share=0.0)
    with pytest.raises(DataError, match=r"copies\.jsonl:1: source image: .*rl_train\.jsonl:7 has the same"):
        tasks.size("val")


def test_a_source_that_is_not_there_is_told_with_its_line(published: Path, tmp_path: Path) -> None:
    path = copies(published, tmp_path / "copies", 0, 2)
    (path.parent / "copy-2.png").unlink()
    with pytest.raises(DataError, match=r"copies\.jsonl:2: source image: .*copy-2\.png"):
        stored(path).size("train")


def test_an_episode_starts_from_the_state_and_the_runs_judge_grades_it(published: Path) -> None:
    config = load_config("demo", ["tasks=stored", f"tasks.options.path={published}", "episode.start=stored"])
    parts = Parts.from_config(replace(config, episode=replace(config.episode, max_turns=1)))
    state = parts.tasks.start("train", 0)
    session = parts.session()
    observation = asyncio.run(session.start(state, 0))
    assert observation.prompt == state.prompt
    expected = parts.judge.judge(state.task.source, state.edited, state.task.instruction)
    assert session.verdict == expected  # and not the file's 1 and 1
    reply = '<think>wrong</think><score>{"semantic": 2, "quality": 9}</score><answer>paint it</answer>'
    turn = asyncio.run(session.step(reply))
    assert turn.before == expected
    assert turn.terminated


def test_our_records_bring_their_judge_along(published: Path, tmp_path: Path) -> None:
    from thinkedit.data.formats import records
    from thinkedit.data.formats.reference import read_reference

    path = tmp_path / "rl.jsonl"
    first = next(iter(read_reference(published)))
    score = records.Score.of(4, 9, "somebody", "abc")
    import msgspec

    path.write_bytes(records.encode(msgspec.structs.replace(first, score=score)))
    tasks = stored(path, format="records", val_share=0.0, test_share=0.0)
    state = tasks.start("train", 0)
    assert state.verdict is not None
    assert (state.verdict.scores.semantic, state.verdict.judge_id) == (4, "somebody")
    parts = Parts.from_config(load_config("demo"))
    with pytest.raises(JudgeMismatch, match="somebody"):
        asyncio.run(parts.session().start(state, 0))


def test_a_fault_anywhere_in_the_file_is_told_before_the_first_episode(
    tmp_path: Path, published: Path
) -> None:
    lines = published.read_text().splitlines()
    lines[40] = lines[40].replace('"rewritten_prompt"', '"rewriten_prompt"')
    path = tmp_path / "rl_train.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"rl_train\.jsonl:41: rewritten_prompt: .* missing"):
        stored(path, image_dir=str(published.parent)).size("train")


def test_an_edit_of_another_size_is_scaled_only_on_request(published: Path, tmp_path: Path) -> None:
    Image.open(published.parent / "edit/0.png").resize((64, 64)).save(tmp_path / "small.png")
    line = json.loads(published.read_text().splitlines()[0])
    line["edited_image_path"] = str(tmp_path / "small.png")
    path = tmp_path / "rl_train.jsonl"
    path.write_text(json.dumps(line))
    shares = {"val_share": 0.0, "test_share": 0.0, "image_dir": str(published.parent)}
    with pytest.raises(DataError, match=r"64 x 64 pixels, its source 96 x 96.*resize=true"):
        stored(path, **shares).start("train", 0)
    state = stored(path, resize=True, **shares).start("train", 0)
    assert state.edited.shape == state.task.source.shape


def test_options_are_checked(published: Path) -> None:
    with pytest.raises(UnknownName, match="reference"):
        stored(published, format="referense")
    with pytest.raises(ConfigError, match="shares of one whole"):
        stored(published, val_share=0.9, test_share=0.2)
    with pytest.raises(IndexError, match="asked for 99"):
        stored(published).task("train", 99)
