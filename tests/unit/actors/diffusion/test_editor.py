"""The editor around a pipeline: its thread, its end, its identity, and packages that are missing."""

import asyncio
import importlib.util
import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_pipelines import tiny

from thinkedit import plugins
from thinkedit.actors.diffusion.editor import DiffusersEditor
from thinkedit.actors.diffusion.options import DiffusersConfig
from thinkedit.actors.diffusion.pipeline import EditPipeline
from thinkedit.configs.load import load_config
from thinkedit.envs.build import Parts
from thinkedit.errors import ConfigError, EditorError
from thinkedit.types import RGB

SOURCE = np.random.default_rng(0).integers(0, 256, (48, 96, 3), np.uint8)

Editor = Callable[..., DiffusersEditor]


STEPS = 900
ENOUGH = 300  # that no thread needs to notice that it shall stop


class Endless:
    """An editor of so many steps that they end only when it is told to stop."""

    def __init__(self) -> None:
        self.began, self.steps = threading.Event(), 0
        config = DiffusersConfig(
            model="instruct_pix2pix", device="cpu", dtype="float32", steps=STEPS, area=64 * 64
        )
        self.editor = DiffusersEditor(config, loader=self._load)

    def _load(self, config: DiffusersConfig) -> EditPipeline:
        pipeline = tiny("instruct_pix2pix")
        pipeline.unet.register_forward_pre_hook(self._count)
        return EditPipeline(config, pipeline)

    def _count(self, *_: object) -> None:
        self.steps += 1
        self.began.set()


@pytest.fixture
def endless() -> Iterator[Endless]:
    one = Endless()
    yield one
    one.editor.close()


def test_an_edit_that_nobody_waits_for_is_given_up(endless: Endless) -> None:
    async def impatient() -> None:
        edit = asyncio.create_task(endless.editor.edit_async(SOURCE, "x", seed=0))
        await asyncio.to_thread(endless.began.wait)
        edit.cancel()
        with pytest.raises(asyncio.CancelledError):
            await edit
        await asyncio.to_thread(endless.editor.load)  # waits for its turn behind the edit

    asyncio.run(impatient())
    assert endless.steps < ENOUGH


def test_closing_ends_what_runs_and_what_waits(endless: Endless) -> None:
    failures: list[str] = []

    def ask() -> None:
        try:
            endless.editor.edit(SOURCE, "x", seed=0)
        except EditorError as error:
            failures.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    endless.began.wait()
    endless.editor.close()
    for thread in threads:
        thread.join()
    assert failures == ["editor 'instruct_pix2pix' was closed before the edit was done"] * 3
    assert endless.steps < ENOUGH


def test_closing_ends_asynchronous_edits_too(endless: Endless) -> None:
    async def ask() -> list[Any]:
        edits = [asyncio.create_task(endless.editor.edit_async(SOURCE, "x", seed=seed)) for seed in range(2)]
        await asyncio.to_thread(endless.began.wait)
        await asyncio.to_thread(endless.editor.close)
        return await asyncio.gather(*edits, return_exceptions=True)

    assert [type(result) for result in asyncio.run(ask())] == [EditorError] * 2
    assert endless.steps < ENOUGH


def test_a_closed_editor_loads_again_when_asked(editor: Editor) -> None:
    one = editor("instruct_pix2pix")
    before = one.edit(SOURCE, "x", seed=0)
    one.close()
    np.testing.assert_array_equal(one.edit(SOURCE, "x", seed=0), before)
    one.close()


def test_weights_are_read_by_the_first_edit_and_once() -> None:
    loads: list[DiffusersConfig] = []

    def loader(config: DiffusersConfig) -> EditPipeline:
        loads.append(config)
        return EditPipeline(config, tiny("instruct_pix2pix"))

    config = DiffusersConfig(model="instruct_pix2pix", device="cpu", dtype="float32", steps=1, area=64 * 64)
    one = DiffusersEditor(config, loader=loader)
    assert loads == []
    for seed in range(3):
        one.edit(SOURCE, "x", seed=seed)
    assert loads == [config]
    one.close()


@pytest.mark.parametrize("failure", [ConfigError("it is broken"), RuntimeError("it is broken")])
def test_what_cannot_be_loaded_is_tried_once(failure: Exception) -> None:
    loads: list[int] = []

    def loader(config: DiffusersConfig) -> EditPipeline:
        loads.append(0)
        raise failure

    one = DiffusersEditor(DiffusersConfig(device="cpu"), loader=loader)
    for _ in range(2):
        with pytest.raises(EditorError, match=r"flux_kontext can't be loaded: .*it is broken"):
            one.edit(SOURCE, "x", seed=0)
    with pytest.raises(ConfigError, match="it is broken"):
        one.load()
    assert len(loads) == 1
    one.close()
    with pytest.raises(ConfigError):
        one.load()
    assert len(loads) == 2, "close forgets it, so that it can be mended"
    one.close()


def test_what_changes_pixels_is_in_the_settings() -> None:
    def key(**options: Any) -> str:
        return json.dumps(dict(DiffusersEditor(DiffusersConfig(**options)).settings()), sort_keys=True)

    plain = key()
    changes: list[dict[str, Any]] = [
        {"weights": "owner/name"},
        {"steps": 4},
        {"guidance": 3.0},
        {"area": 512 * 512},
        {"scheduler": "FlowMatchLCMScheduler"},
        {"scheduler_options": {"shift": 2.0}},
        {"dtype": "float32"},
        {"compile": "default"},
        {"lora": "owner/name", "lora_file": "a.safetensors"},
    ]
    assert len({plain, *(key(**change) for change in changes)}) == len(changes) + 1
    assert key(offload="model", device="cuda:1") == plain
    assert key(steps=28, guidance=2.5) == plain, "the table's own values are not another setting"
    assert DiffusersEditor(DiffusersConfig(revision="abc")).revision == "abc"


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "thinkedit.actors.diffusion.editor.find_spec",
        lambda name, *rest: None if name in names else found(name, *rest),
    )


def test_missing_libraries_are_named_all_together(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "diffusers", "torchao")
    with pytest.raises(ConfigError, match=r"needs diffusers, torchao: pip install 'thinkedit\[diffusers\]'"):
        DiffusersEditor(DiffusersConfig(quantization="int8"))


def test_a_library_that_is_not_used_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "torchao", "peft")
    DiffusersEditor(DiffusersConfig())


class TestOmniGen2:
    def test_without_its_package_the_message_says_what_to_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        without(monkeypatch, "omnigen2")
        with pytest.raises(ConfigError, match=r"'omnigen2'.*PYTHONPATH.*editor=http_omnigen2.*docs/"):
            plugins.build("editors", "diffusers", {"model": "omnigen2"})

    def test_a_package_without_the_class_says_which(
        self, package: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (package / "models/transformers/transformer_omnigen2.py").write_text("")
        folder = save_stand_in(tmp_path)
        with pytest.raises(EditorError, match="OmniGen2Transformer2DModel needs the package 'omnigen2'"):
            omnigen2(folder).edit(SOURCE, "x", seed=0)

    def test_a_package_that_breaks_at_import_is_a_typed_failure(self, package: Path, tmp_path: Path) -> None:
        """The real one asks for a GPU's properties as it is imported, where triton is installed."""
        (package / "models/transformers/transformer_omnigen2.py").write_text("raise RuntimeError('no GPU')")
        with pytest.raises(EditorError, match="omnigen2 can't be loaded: RuntimeError: no GPU"):
            omnigen2(save_stand_in(tmp_path)).edit(SOURCE, "x", seed=0)

    def test_classes_come_from_its_package_and_arguments_have_its_names(
        self, package: Path, tmp_path: Path
    ) -> None:
        one = omnigen2(save_stand_in(tmp_path))
        image = one.edit(SOURCE, "paint it", seed=3)
        assert image.shape == SOURCE.shape
        import omnigen2.pipelines.omnigen2.pipeline_omnigen2 as module  # type: ignore[import-not-found]

        (call,) = module.CALLS
        (picture,) = call.pop("input_images")
        assert picture.size[0] % 16 == picture.size[1] % 16 == 0
        assert call.pop("generator").initial_seed() == 3
        assert call == {
            "prompt": "paint it",
            "output_type": "np",
            "num_inference_steps": 50,
            "text_guidance_scale": 5.0,
            "image_guidance_scale": 1.5,
            "negative_prompt": "",
            "max_sequence_length": 896,
        }
        one.close()

    @pytest.fixture
    def package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        """A package with the real one's names: the real one can't be had from an index."""
        root = tmp_path / "source" / "omnigen2"
        for name, text in STAND_IN.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        monkeypatch.syspath_prepend(str(root.parent))
        yield root
        for name in [name for name in sys.modules if name.split(".")[0] == "omnigen2"]:
            del sys.modules[name]


def omnigen2(folder: Path) -> DiffusersEditor:
    return DiffusersEditor(
        DiffusersConfig(model="omnigen2", weights=str(folder), device="cpu", dtype="float32", area=64 * 64)
    )


def save_stand_in(tmp_path: Path) -> Path:
    from diffusers import FlowMatchEulerDiscreteScheduler
    from tiny_pipelines import autoencoder

    folder = tmp_path / "weights"
    autoencoder(channels=4).save_pretrained(folder / "transformer")
    FlowMatchEulerDiscreteScheduler().save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "OmniGen2Pipeline",
        "transformer": ["transformer_omnigen2", "OmniGen2Transformer2DModel"],
        "scheduler": ["scheduling_flow_match_euler_discrete", "FlowMatchEulerDiscreteScheduler"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


STAND_IN = {
    "models/transformers/transformer_omnigen2.py": (
        "from diffusers import AutoencoderKL as Base\n\n\nclass OmniGen2Transformer2DModel(Base):\n    pass\n"
    ),
    "schedulers/scheduling_flow_match_euler_discrete.py": (
        "from diffusers import FlowMatchEulerDiscreteScheduler as Base\n\n\n"
        "class FlowMatchEulerDiscreteScheduler(Base):\n    pass\n"
    ),
    "pipelines/omnigen2/pipeline_omnigen2.py": """
from types import SimpleNamespace

import numpy as np
from diffusers import DiffusionPipeline

CALLS = []


class OmniGen2Pipeline(DiffusionPipeline):
    def __init__(self, transformer, scheduler):
        super().__init__()
        self.register_modules(transformer=transformer, scheduler=scheduler)

    def __call__(self, **arguments):
        CALLS.append(arguments)
        return SimpleNamespace(images=[np.full((32, 64, 3), 0.5, np.float32)])
""",
}


def test_it_is_found_by_name_and_played_with(folder: Callable[[str], Path]) -> None:
    config = load_config(
        "demo",
        [
            "editor=instruct_pix2pix",
            f"editor.options.weights={folder('instruct_pix2pix')}",
            "editor.options.steps=2",
            "editor.options.area=4096",
            "editor.options.device=cpu",
            "editor.options.dtype=float32",
            "editor.cache_dir=null",
        ],
    )
    parts = Parts.from_config(config)
    session = parts.session()
    task = parts.tasks.task("train", 0)
    observation = asyncio.run(session.start(task, seed=0))
    first: RGB = observation.edited
    assert first.shape == observation.source.shape
    assert not np.array_equal(first, observation.source)
    parts.close()
