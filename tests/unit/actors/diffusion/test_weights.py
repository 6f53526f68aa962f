"""Weights are what they should be, or are refused before one is read."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from thinkedit.actors.diffusion import weights
from thinkedit.actors.diffusion.editor import DiffusersEditor
from thinkedit.actors.diffusion.models import MODELS
from thinkedit.actors.diffusion.options import DiffusersConfig
from thinkedit.actors.diffusion.pipeline import EditPipeline
from thinkedit.errors import ConfigError

VAE = "vae/diffusion_pytorch_model.safetensors"

Editor = Callable[..., DiffusersEditor]


@pytest.fixture
def copy(folder: Callable[[str], Path], tmp_path: Path) -> Path:
    """A folder of FLUX.1-Kontext that may be damaged."""
    return Path(shutil.copytree(folder("flux_kontext"), tmp_path / "copy"))


def change_index(folder: Path, **values: Any) -> None:
    index = folder / weights.INDEX
    index.write_text(json.dumps({**json.loads(index.read_text()), **values}))


def test_another_models_folder_names_the_model(editor: Editor, folder: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigError, match=r"holds a LongCatImageEditPipeline.*set model=longcat"):
        editor("flux_kontext", weights=str(folder("longcat")))


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ("no such folder", "there is no folder no such folder"),
        ("/a/b/c", "there is no folder /a/b/c"),
        ("model.ckpt", "pickled"),
        ("weights.bin", "pickled"),
    ],
)
def test_a_name_that_names_nothing_is_refused(editor: Editor, named: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        editor("flux_kontext", weights=named)


def test_one_file_is_no_folder(editor: Editor, copy: Path) -> None:
    with pytest.raises(ConfigError, match="is one file"):
        editor("flux_kontext", weights=str(copy / VAE))


def test_an_index_that_is_missing_or_no_json_is_refused(editor: Editor, copy: Path) -> None:
    for text in ("{", "[]", None):
        (copy / weights.INDEX).unlink(missing_ok=True)
        if text is not None:
            (copy / weights.INDEX).write_text(text)
        with pytest.raises(ConfigError, match=f"no readable {weights.INDEX}"):
            editor("flux_kontext", weights=str(copy))


def test_code_beside_weights_is_not_run(editor: Editor, copy: Path) -> None:
    (copy / "transformer/evil.py").write_text("raise SystemExit('it ran')")
    change_index(copy, transformer=["evil", "Transformer"])
    with pytest.raises(ConfigError, match="code in the folder and not run"):
        editor("flux_kontext", weights=str(copy))


def test_a_component_without_a_folder_is_named(editor: Editor, copy: Path) -> None:
    shutil.rmtree(copy / "text_encoder_2")
    with pytest.raises(ConfigError, match="names text_encoder_2, and there is no such folder"):
        editor("flux_kontext", weights=str(copy))


def test_pickled_weights_are_refused_unread(editor: Editor, copy: Path) -> None:
    (copy / VAE).rename(copy / "vae/diffusion_pytorch_model.bin")
    with pytest.raises(ConfigError, match="pickle can run code"):
        editor("flux_kontext", weights=str(copy))
    (copy / "vae/diffusion_pytorch_model.bin").unlink()
    with pytest.raises(ConfigError, match="holds no weights"):
        editor("flux_kontext", weights=str(copy))


def test_a_missing_shard_is_named(editor: Editor, copy: Path) -> None:
    shards = {"a": "part-1-of-2.safetensors", "b": "part-2-of-2.safetensors"}
    (copy / VAE).rename(copy / "vae" / shards["a"])
    (copy / f"{VAE}.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(ConfigError, match=r"lacks part-2-of-2\.safetensors"):
        editor("flux_kontext", weights=str(copy))


@pytest.mark.parametrize("file", [VAE, "text_encoder_2/model.safetensors"])
def test_gaps_in_the_weights_are_not_filled_with_noise(copy: Path, file: str, config: Any) -> None:
    tensors = load_file(copy / file)
    gap = next(name for name, tensor in tensors.items() if tensor.ndim > 1 and "shared" not in name)
    del tensors[gap]
    save_file(tensors, copy / file, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"1 tensors of .* are not there"):
        EditPipeline.load(config("flux_kontext", weights=str(copy)))


def test_a_truncated_file_is_an_error_that_names_its_folder(copy: Path, config: Any) -> None:
    (copy / VAE).write_bytes((copy / VAE).read_bytes()[:500])
    with pytest.raises(ConfigError, match="vae: AutoencoderKL can't be loaded"):
        EditPipeline.load(config("flux_kontext", weights=str(copy)))


def test_a_class_that_diffusers_lacks_is_named(copy: Path, config: Any) -> None:
    change_index(copy, transformer=["diffusers", "FluxTransformerOfTomorrow"])
    with pytest.raises(ConfigError, match="has no FluxTransformerOfTomorrow"):
        EditPipeline.load(config("flux_kontext", weights=str(copy)))


def test_what_is_not_here_and_cannot_be_fetched_says_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests run offline (tests/conftest.py)."""
    with pytest.raises(ConfigError, match=r"no folder here and could not be downloaded.*HF_TOKEN"):
        EditPipeline.load(DiffusersConfig(weights="nobody/has-this", device="cpu"))
    with pytest.raises(ConfigError, match="is not here and could not be downloaded"):
        weights.find_lora("nobody/has-this", "a.safetensors")


def test_files_of_the_hub_are_taken_without_code_pickles_and_doubles(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from fnmatch import fnmatch

    import huggingface_hub

    asked: dict[str, Any] = {}

    def snapshot(repository: str, **options: Any) -> str:
        asked.update(options, repository=repository)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert weights.download("owner/name", "abc123") == tmp_path
    assert (asked["repository"], asked["revision"]) == ("owner/name", "abc123")

    def taken(path: str) -> bool:
        allowed, ignored = asked["allow_patterns"], asked["ignore_patterns"]
        return any(fnmatch(path, p) for p in allowed) and not any(fnmatch(path, p) for p in ignored)

    for path in (
        "model_index.json",
        "transformer/diffusion_pytorch_model-00001-of-00003.safetensors",
        "transformer/diffusion_pytorch_model.safetensors.index.json",
        "tokenizer_2/spiece.model",
        "tokenizer/merges.txt",
        "processor/chat_template.jinja",
        "scheduler/scheduler_config.json",
    ):
        assert taken(path), path
    for path in (
        "flux1-kontext-dev.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "transformer/transformer_omnigen2.py",
        "README.md",
    ):
        assert not taken(path), path


class TestLora:
    def test_a_folder_with_one_adapter_needs_no_file(self, tmp_path: Path) -> None:
        one = tmp_path / "one.safetensors"
        one.touch()
        assert weights.find_lora(str(tmp_path), None) == one
        assert weights.find_lora(str(one), None) == one
        (tmp_path / "two.safetensors").touch()
        with pytest.raises(ConfigError, match=r"holds one\.safetensors, two\.safetensors"):
            weights.find_lora(str(tmp_path), None)
        assert weights.find_lora(str(tmp_path), "one.safetensors") == one

    @pytest.mark.parametrize(
        ("lora", "file", "says"),
        [
            ("adapter.bin", None, "pickled"),
            ("owner/name", "adapter.ckpt", "pickled"),
            ("owner/name", None, "name the file of owner/name as lora_file"),
            ("missing.safetensors", None, r"is no \.safetensors file"),
        ],
    )
    def test_what_is_no_adapter_is_refused(self, lora: str, file: str | None, says: str) -> None:
        with pytest.raises(ConfigError, match=says):
            weights.find_lora(lora, file)


def test_every_row_names_a_repository() -> None:
    for model in MODELS.values():
        assert weights.local_folder(model.weights) is None
