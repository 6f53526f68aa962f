"""`thinkedit train-editor` writes an editor with its card, and goes on where it was stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from thinkedit import cli
from thinkedit.actors.small_diffusion import training
from thinkedit.actors.small_diffusion.editor import SmallDiffusionConfig, SmallDiffusionEditor
from thinkedit.data import editing

runner = CliRunner(env={"COLUMNS": "100", "TERM": "dumb"})


def train_editor(out: Path, *options: str) -> Result:
    sizes = ("--steps", "2", "--batch-size", "2", "--held-out", "4")
    return runner.invoke(cli.app, ["train-editor", str(out), *sizes, *options])


def said(result: Result) -> str:
    """The output as one line, without the box that errors are drawn in."""
    return " ".join(result.output.replace("│", " ").split())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("editor")
    result = train_editor(out)
    assert result.exit_code == 0, result.output
    return out


def test_the_folder_is_an_editor_to_choose_by_its_path(made: Path) -> None:
    editor = SmallDiffusionEditor(SmallDiffusionConfig(path=str(made)))
    trial = editing.trials(1, "as given")[0]
    assert editor.edit(trial.source, trial.prompt, seed=0).shape == (96, 96, 3)


def test_the_card_tells_how_it_was_made_and_how_well_it_edits(made: Path) -> None:
    card = (made / "README.md").read_text(encoding="utf-8")
    assert "`thinkedit train-editor OUT --steps 2 --batch-size 2 --seed 0`" in card
    for wording in editing.WORDINGS:
        assert f"| {wording} | 4 | " in card
    assert "![Contact sheet](contact_sheet.png)" in card
    with Image.open(made / "contact_sheet.png") as sheet:
        assert sheet.width > 4 * 2 * 96


def test_a_finished_folder_is_not_written_over(made: Path) -> None:
    assert "is not an empty folder" in said(train_editor(made))
    assert "nothing to resume" in said(train_editor(made, "--resume"))


def test_a_stopped_training_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = training.Training.run

    def stopped(self: training.Training, samples, on_step) -> None:  # type: ignore[no-untyped-def]
        def stop(row: dict[str, float]) -> None:
            self.save(tmp_path / "training.pt")
            raise KeyboardInterrupt

        run(self, samples, stop)

    monkeypatch.setattr(training.Training, "run", stopped)
    assert train_editor(tmp_path).exit_code != 0
    monkeypatch.undo()
    assert "is not an empty folder" in said(train_editor(tmp_path))
    result = train_editor(tmp_path, "--resume")
    assert result.exit_code == 0, result.output
    assert "2 steps of 2 samples" in (tmp_path / "README.md").read_text(encoding="utf-8")
    assert not (tmp_path / "training.pt").exists()
