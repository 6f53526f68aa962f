"""What a run leaves on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import plain
import pytest

from thinkedit.actors.inference import EditResult, Options, Stop, Thought, contact_sheet, edit_picture, save
from thinkedit.actors.inference.records import Attempt
from thinkedit.configs.schema import ProtocolConfig
from thinkedit.envs.images import read_rgb
from thinkedit.envs.protocol import Protocol
from thinkedit.envs.world.tasks import WorldTasks
from thinkedit.errors import ConfigError, DataError, EditorError, UnknownName
from thinkedit.types import Scores, Verdict

TASK = WorldTasks().task("test", 7)
SCRIPTED = ["inference.thinker=naive_expert", "episode.max_turns=4"]


@pytest.fixture(scope="module")
def result() -> EditResult:
    return edit_picture(TASK.source, TASK.instruction, overrides=[*SCRIPTED, "inference.select=best_judge"])


def test_every_picture_is_there_and_is_what_was_made(result: EditResult, tmp_path: Path) -> None:
    folder = save(result, tmp_path / "out")
    edits = [f"edit_{k}.png" for k in range(len(result.attempts))]
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        ["source.png", "result.png", "sheet.png", "edit.json", *edits]
    )
    assert len(edits) > 1
    for name, attempt in zip(edits, result.attempts, strict=True):
        np.testing.assert_array_equal(read_rgb(folder / name), attempt.image)
    np.testing.assert_array_equal(read_rgb(folder / "source.png"), TASK.source)
    np.testing.assert_array_equal(read_rgb(folder / "result.png"), result.image)


def test_the_record_says_who_did_what(result: EditResult, tmp_path: Path) -> None:
    record = json.loads((save(result, tmp_path / "out") / "edit.json").read_text())
    assert record["instruction"] == TASK.instruction
    assert (record["mode"], record["select"], record["seed"]) == ("while", "best_judge", 0)
    assert record["editor"]["name"] == "procedural"
    assert record["editor"]["settings"]["max_words"] == 14
    asked = Protocol(ProtocolConfig(template="brief")).prompt_hash
    about = {"name": "naive_expert", "accept_at": 8.0, "prompt_hash": asked, "tries": 3}
    assert record["thinker"] == about
    assert record["judge"]["name"] == "world"
    assert (record["stop"], record["chosen"]) == (result.stop.value, result.chosen)
    for written, attempt in zip(record["edits"], result.attempts, strict=True):
        assert attempt.verdict is not None
        assert written["prompt"] == attempt.prompt
        assert written["verdict"]["semantic"] == attempt.verdict.scores.semantic
        if attempt.thought is not None:
            assert written["critique"]["reply"] == attempt.thought.reply
            assert written["critique"]["predicted"] is not None


def test_a_folder_with_something_in_it_is_left_alone(result: EditResult, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        save(result, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_texts_of_any_kind_can_be_written_and_read_back(tmp_path: Path) -> None:
    thought = Thought(reason="坏 \udc80", prompt="p", predicted=None, end=None, reply="r\x00")
    attempt = Attempt(index=0, prompt="天空变红", image=TASK.source, seconds=0.1, thought=thought)
    result = EditResult(
        source=TASK.source,
        instruction="天空变红",
        options=Options(),
        rewrite=None,
        attempts=(attempt,),
        chosen=0,
        stop=Stop.TURN_LIMIT,
    )
    record = json.loads((save(result, tmp_path / "out") / "edit.json").read_text(encoding="utf-8"))
    assert record["edits"][0]["critique"]["reason"] == "坏 \udc80"
    assert record["edits"][0]["critique"]["reply"] == "r\x00"


def test_the_sheet_frames_the_chosen_edit() -> None:
    grey = np.full((40, 80, 3), 128, np.uint8)
    verdict = Verdict(scores=Scores(3, 4), judge_id="j", prompt_hash="p")
    attempts = tuple(
        Attempt(index=k, prompt=f"prompt {k}", image=grey, seconds=0, verdict=verdict) for k in range(2)
    )
    sheets = [
        contact_sheet(
            EditResult(
                source=grey,
                instruction="i",
                options=Options(),
                rewrite=None,
                attempts=attempts,
                chosen=chosen,
                stop=Stop.TURN_LIMIT,
            )
        )
        for chosen in (0, 1)
    ]
    frame = [(sheet == (91, 91, 214)).all(axis=2).any(axis=0).nonzero()[0] for sheet in sheets]
    third = sheets[0].shape[1] / 3
    assert third < frame[0].mean() < 2 * third < frame[1].mean()


# --- the function -----------------------------------------------------------------------


def test_a_file_may_be_given(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(TASK.source).save(tmp_path / "picture.png")
    from_file = edit_picture(tmp_path / "picture.png", TASK.instruction, overrides=SCRIPTED)
    from_array = edit_picture(TASK.source, TASK.instruction, overrides=SCRIPTED)
    assert [a.prompt for a in from_file.attempts] == [a.prompt for a in from_array.attempts]
    np.testing.assert_array_equal(from_file.image, from_array.image)


def test_pictures_can_be_cut_to_the_size_an_editor_takes() -> None:
    wide = np.pad(TASK.source, ((0, 0), (48, 48), (0, 0)), mode="edge")
    with pytest.raises(EditorError):
        edit_picture(wide, TASK.instruction, overrides=SCRIPTED)
    fitted = edit_picture(wide, TASK.instruction, overrides=[*SCRIPTED, "inference.size=96x96"])
    np.testing.assert_array_equal(fitted.source, TASK.source)


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["inference.thinker=naive_export"], UnknownName, "naive_expert"),
        (["inference.mode=befor"], UnknownName, "before"),
        (["inference.select=best_jugde"], UnknownName, "best_judge"),
        (["inference.server.output=jsn"], UnknownName, "json_schema"),
        (["inference.tries=0"], ConfigError, "inference.tries"),
        ([*SCRIPTED, "inference.size=96"], ConfigError, "must look like"),
        ([*SCRIPTED, "inference.mode=expert"], ConfigError, "OpenAI-compatible server"),
        ([*SCRIPTED, "inference.mode=before", "inference.select=best_judge"], ConfigError, "one edit"),
        ([], ConfigError, "has not learned to critique"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    overrides: list[str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        edit_picture(TASK.source, TASK.instruction, overrides=overrides)


def test_a_plus_sign_is_no_trouble_in_an_override() -> None:
    result = edit_picture(TASK.source, TASK.instruction, overrides=[*SCRIPTED, "inference.mode=before+while"])
    assert result.rewrite is not None


def test_a_photograph_is_no_picture_of_the_world() -> None:
    photograph: Any = plain.task(side=96).source[:, :96]
    with pytest.raises(EditorError, match="pictures of the world only"):
        edit_picture(photograph, "make it red", overrides=SCRIPTED)
