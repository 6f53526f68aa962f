"""The editor with its shipped weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from thinkedit import plugins
from thinkedit.actors.small_diffusion.card import contact_sheet
from thinkedit.actors.small_diffusion.editor import SHIPPED, SmallDiffusionConfig, SmallDiffusionEditor
from thinkedit.actors.small_diffusion.figures import Edit, Figures, by, make_edits, swayed
from thinkedit.data import editing
from thinkedit.envs.editors.base import Editor
from thinkedit.errors import ConfigError, EditorError
from thinkedit.testing import EditorContract
from thinkedit.types import RGB


class TestSmallDiffusionEditor(EditorContract):
    def make(self) -> Editor:
        return SmallDiffusionEditor()

    def source(self) -> RGB:
        return editing.trials(1, "placed, keep")[0].source


@pytest.fixture(scope="module")
def edits() -> list[Edit]:
    return make_edits(SmallDiffusionEditor(), editing.trials(30, "placed, keep"))


def test_the_shipped_weights_do_what_is_named_and_placed(edits: list[Edit]) -> None:
    figures = Figures.of(edits)
    assert figures.done >= 0.8
    assert figures.overall >= 7.0


def test_figures_by_operation_add_up(edits: list[Edit]) -> None:
    groups = by("operation", edits)
    assert sum(group.count for group in groups.values()) == len(edits)
    whole = sum(group.count * group.overall for group in groups.values()) / len(edits)
    assert whole == pytest.approx(Figures.of(edits).overall)


def test_the_contact_sheet_shows_sources_and_edits(edits: list[Edit]) -> None:
    sheet = np.asarray(contact_sheet(edits))
    both = np.hstack([edits[0].trial.source, edits[0].edited])
    windows = np.lib.stride_tricks.sliding_window_view(sheet, both.shape)[:40, :40, 0]
    assert (windows == both).all(axis=(2, 3, 4)).any()


def test_seeds_and_words_change_the_edit() -> None:
    editor = SmallDiffusionEditor()
    trial = editing.trials(1, "placed, keep")[0]
    first = editor.edit(trial.source, trial.prompt, seed=0)
    assert not np.array_equal(first, editor.edit(trial.source, trial.prompt, seed=1))
    assert not np.array_equal(first, editor.edit(trial.source, "erase it", seed=0))


def test_seeds_sway_what_an_ambiguous_instruction_comes_to() -> None:
    trials = [trial for trial in editing.trials(150, "as given") if trial.reference == "ambiguous"]
    some, others = (make_edits(SmallDiffusionEditor(), trials, first_seed=seed) for seed in (0, 1000))
    assert swayed(some, some) == 0
    assert swayed(some, others) > 0


def test_it_does_better_told_by_name_and_place_than_by_the_tasks_own_words(edits: list[Edit]) -> None:
    given = Figures.of(make_edits(SmallDiffusionEditor(), editing.trials(len(edits), "as given")))
    assert Figures.of(edits).overall > given.overall + 0.5


def test_an_edit_takes_one_thread_and_leaves_torchs_setting_alone() -> None:
    editor = SmallDiffusionEditor()
    before, seen = torch.get_num_threads(), []
    editor._loaded().network.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    torch.set_num_threads(2)
    try:
        editor.edit(editing.trials(1, "as given")[0].source, "paint it", seed=0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {1}


def test_another_size_is_refused() -> None:
    with pytest.raises(EditorError, match="96 x 96 only, got 60 x 40"):
        SmallDiffusionEditor().edit(np.zeros((40, 60, 3), np.uint8), "paint it", seed=0)


def test_no_steps_and_no_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="steps"):
        SmallDiffusionEditor(SmallDiffusionConfig(steps=0))
    with pytest.raises(ConfigError, match="no weights at"):
        SmallDiffusionEditor(SmallDiffusionConfig(path=str(tmp_path)))


def test_settings_tell_pipelines_and_steps_apart_and_not_places(tmp_path: Path) -> None:
    shipped = SmallDiffusionEditor().settings()
    assert SmallDiffusionEditor(SmallDiffusionConfig(steps=2)).settings() != shipped
    for part in ("network/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"):
        copy = tmp_path / part.replace("/", "-")
        shutil.copytree(SHIPPED, copy)
        assert SmallDiffusionEditor(SmallDiffusionConfig(path=str(copy))).settings() == shipped
        (copy / part).write_bytes(b"other")
        assert SmallDiffusionEditor(SmallDiffusionConfig(path=str(copy))).settings() != shipped


def test_one_line_of_configuration_chooses_it() -> None:
    from thinkedit.configs.load import load_config

    config = load_config("demo", ["editor=small_diffusion"])
    editor = plugins.build("editors", config.editor.name, config.editor.options)
    assert isinstance(editor, SmallDiffusionEditor)
