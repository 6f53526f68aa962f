from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
from safetensors.torch import load_file, save_file

from thinkedit.learner.interpolation import WeightsDiffer, interpolate


def model(folder: Path, **files: dict[str, torch.Tensor]) -> Path:
    folder.mkdir()
    for name, tensors in files.items():
        save_file(tensors, folder / f"{name}.safetensors")
    return folder


def test_each_weight_goes_part_of_the_way_whatever_file_it_is_in(tmp_path: Path) -> None:
    start = model(tmp_path / "start", one={"a": torch.zeros(2), "b": torch.full((1, 2), 4.0)})
    end = model(tmp_path / "end", first={"a": torch.tensor([1.0, -2.0])}, second={"b": torch.zeros(1, 2)})
    interpolate(start, end, 0.75)
    assert torch.equal(load_file(end / "first.safetensors")["a"], torch.tensor([0.75, -1.5]))
    assert torch.equal(load_file(end / "second.safetensors")["b"], torch.ones(1, 2))
    assert torch.equal(load_file(start / "one.safetensors")["a"], torch.zeros(2))


def test_half_precision_stays_half_precision(tmp_path: Path) -> None:
    start = model(tmp_path / "start", one={"a": torch.zeros(2, dtype=torch.bfloat16)})
    end = model(tmp_path / "end", one={"a": torch.ones(2, dtype=torch.bfloat16)})
    interpolate(start, end, 0.5)
    mixed = load_file(end / "one.safetensors")["a"]
    assert mixed.dtype == torch.bfloat16
    assert mixed.tolist() == [0.5, 0.5]


def test_the_whole_way_leaves_the_files_alone(tmp_path: Path) -> None:
    end = model(tmp_path / "end", one={"a": torch.ones(2)})
    before = (end / "one.safetensors").stat().st_mtime_ns
    interpolate("no/such-model", end, 1.0)
    assert (end / "one.safetensors").stat().st_mtime_ns == before


def test_a_model_without_safetensors_is_not_passed_off_as_mixed(tmp_path: Path) -> None:
    start = model(tmp_path / "start", one={"a": torch.zeros(2)})
    with pytest.raises(WeightsDiffer, match="holds no"):
        interpolate(start, model(tmp_path / "end"), 0.5)


@pytest.mark.parametrize("there", [{"b": [1.0]}, {"a": [1.0, 2.0]}])
def test_models_of_other_shapes_are_refused(tmp_path: Path, there: dict[str, list[float]]) -> None:
    start = model(tmp_path / "start", one={name: torch.tensor(value) for name, value in there.items()})
    end = model(tmp_path / "end", one={"a": torch.ones(1)})
    with pytest.raises(WeightsDiffer, match="'a'"):
        interpolate(start, end, 0.5)
