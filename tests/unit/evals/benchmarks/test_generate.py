"""What is made, what is kept, what is made anew, and what breaks off."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import numpy as np
import plain
import pytest
from benchmark_judge import FIXTURES
from PIL import Image

from thinkedit.actors.inference import ThinkingEditor
from thinkedit.actors.inference.thinkers import PolicyThinker
from thinkedit.actors.play import Context, Reply
from thinkedit.configs.load import load_config
from thinkedit.envs.editors.base import Editor
from thinkedit.envs.images import read_rgb
from thinkedit.envs.protocol import Protocol
from thinkedit.envs.services import Services
from thinkedit.errors import EditorError, JudgeError
from thinkedit.evals.benchmarks import arms
from thinkedit.evals.benchmarks.arms import Arm, open_arm
from thinkedit.evals.benchmarks.generate import Maker, generate, plain_editor, thinking_editor
from thinkedit.evals.benchmarks.imgedit import ImgEdit
from thinkedit.evals.benchmarks.run import turn_names
from thinkedit.types import Observation


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The files of five items, to be changed."""
    return Path(shutil.copytree(FIXTURES / "imgedit", tmp_path / "data"))


def change(data: Path, item: str, **fields: str) -> None:
    file = data / "singleturn.json"
    records = json.loads(file.read_text())
    records[item] |= fields
    file.write_text(json.dumps(records))


class Thinks:
    """Wants one more edit each time. From the reply after `good` it gives none."""

    def __init__(self, good: int = 999) -> None:
        self.asked, self._good = 0, good

    async def reply(self, observation: Observation, context: Context) -> Reply:
        self.asked += 1
        if self.asked > self._good:
            raise JudgeError("the thinker's server is gone")
        return Reply(plain.reply(f"{observation.prompt} and red"))


def maker(editor: Editor, thinker: Thinks | None = None) -> Maker:
    services = Services(editor, plain.HalfJudge(), 20.0, 20.0)
    if thinker is None:
        return plain_editor(services, seed=0)
    config = load_config("demo", ["episode.max_turns=2"])
    thinking = ThinkingEditor(config, services, PolicyThinker(thinker, Protocol(), {"name": "test"}, tries=1))
    return thinking_editor(thinking, thinking.options())


def make(data: Path, made_by: Maker, edits: int = 3) -> tuple[Arm, dict[str, str]]:
    arm = open_arm(data.parent / "arms", "a", {}, turn_names(edits))
    return arm, asyncio.run(generate(ImgEdit(data), arm, made_by, concurrency=1))


def test_a_second_run_asks_neither_editor_nor_thinker(data: Path) -> None:
    editor, thinker = plain.HalfPainter(), Thinks()
    make(data, maker(editor, thinker))
    assert (len(editor.calls), thinker.asked) == (5 * 3, 5 * 2)
    make(data, maker(editor, thinker))
    assert (len(editor.calls), thinker.asked) == (5 * 3, 5 * 2)


def test_a_corrected_instruction_is_edited_anew_and_nothing_else_is(data: Path) -> None:
    editor = plain.HalfPainter()
    make(data, maker(editor), edits=1)
    change(data, "12", prompt="make the left half blue")
    editor.calls.clear()
    arm, _ = make(data, maker(editor), edits=1)
    assert editor.calls == [("make the left half blue", 0)]
    item = ImgEdit(data).items[1]
    path, record = arm.picture(ImgEdit(data), item, "final"), arm.record(item)
    assert path is not None
    assert tuple(read_rgb(path)[0, 0]) == plain.COLOURS["blue"]
    assert record is not None
    assert record["instruction"] == "make the left half blue"


def test_another_source_picture_is_edited_anew(data: Path) -> None:
    editor = plain.HalfPainter()
    make(data, maker(editor), edits=1)
    source = data / "shapes" / "13.png"
    Image.fromarray(np.roll(read_rgb(source), 5, axis=0)).save(source)
    editor.calls.clear()
    make(data, maker(editor), edits=1)
    assert editor.calls == [("delete the red circle", 0)]


def test_a_result_of_another_instruction_is_not_there(data: Path) -> None:
    """Also in an arm that this run doesn't make."""
    arm, _ = make(data, maker(plain.HalfPainter()), edits=1)
    change(data, "12", prompt="another one")
    items = ImgEdit(data).items
    assert [arm.picture(ImgEdit(data), item, "final") is None for item in items] == [
        item.id == "12" for item in items
    ]


def test_no_record_vouches_for_pictures_half_written_over_its_own(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (data / "singleturn.json").read_text()
    make(data, maker(plain.HalfPainter()))
    change(data, "12", prompt="make the left half blue")

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(arms, "_copy", killed)  # turn 1 is written, the next is the same picture
        with pytest.raises(KeyboardInterrupt):
            make(data, maker(plain.HalfPainter()))
    (data / "singleturn.json").write_text(before)  # the old instruction again, beside a new picture
    arm = open_arm(data.parent / "arms", "a", {}, turn_names(3))
    assert arm.picture(ImgEdit(data), ImgEdit(data).items[1], "final") is None


def test_an_item_whose_editor_fails_midway_is_missing_until_the_next_run(data: Path) -> None:
    """The second edit of the first item fails; the other four are whole."""

    class FailsOnce(plain.HalfPainter):
        def edit(self, source, prompt, *, seed):  # type: ignore[no-untyped-def]
            image = super().edit(source, prompt, seed=seed)
            if len(self.calls) == 2:
                raise EditorError("503: no worker is free")
            return image

    editor = FailsOnce()
    arm, failed = make(data, maker(editor, Thinks()))
    assert failed.keys() == {"11"}
    assert "503: no worker is free" in failed["11"]
    benchmark = ImgEdit(data)
    assert [arm.picture(benchmark, item, "1") is None for item in benchmark.items] == [True] + 4 * [False]
    editor.calls[:] = [("", 0)] * 9
    _, failed = make(data, maker(editor, Thinks()))
    assert not failed
    assert len(editor.calls) == 9 + 3


def test_a_thinker_without_a_reply_leaves_no_result(data: Path) -> None:
    """It replies twice about the first item and once about the second."""
    arm, failed = make(data, maker(plain.HalfPainter(), Thinks(good=3)))
    assert failed.keys() == {"12", "13", "14", "15"}
    assert all("the thinker's server is gone" in why for why in failed.values())
    benchmark = ImgEdit(data)
    assert [arm.picture(benchmark, item, "final") is None for item in benchmark.items] == [False] + 4 * [True]
