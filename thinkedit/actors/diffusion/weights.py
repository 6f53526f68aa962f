"""Where weights are, and whether they are what they should be: found out before one is read.

Only safetensors are read. Pickled weights (.bin, .ckpt, .pt) can run code when they are read, and
code that lies beside weights is neither downloaded nor imported.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from thinkedit.actors.diffusion.models import MODELS, Model
from thinkedit.errors import ConfigError

INDEX = "model_index.json"
LIBRARIES = ("diffusers", "transformers", "stable_diffusion")  # the last is a part of diffusers
_PICKLED = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
_HUB = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
# Neither code nor pickles; nor variants (model.fp16.safetensors), which would double the download.
_WANTED = [INDEX, "*/*.json", "*/*.safetensors", "*/*.txt", "*/*.model", "*/*.jinja"]
_UNWANTED = ["*.*.safetensors"]


def local_folder(weights: str) -> Path | None:
    """The folder that `weights` names; None where it names a repository at the hub.

    Raises:
        ConfigError: neither.
    """
    path = Path(weights).expanduser()
    if path.is_dir():
        return path
    _refuse_pickle(path)
    if path.is_file():
        raise ConfigError(f"weights: {path} is one file; name a folder as `save_pretrained` writes it")
    if not _HUB.fullmatch(weights):
        raise ConfigError(f"weights: there is no folder {weights}, and the hub names owner/name")
    return None


def download(repository: str, revision: str) -> Path:
    """The repository's folder in the hub's cache, downloaded if it is not there yet.

    Raises:
        ConfigError: no such repository or revision, no access to it, or no connection.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(
            snapshot_download(
                repository, revision=revision, allow_patterns=_WANTED, ignore_patterns=_UNWANTED
            )
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ConfigError(
            f"weights: {repository} at revision {revision} is no folder here and could not be downloaded "
            f"({_first_line(error)}); a gated model needs its licence accepted and HF_TOKEN set"
        ) from error


def check_folder(folder: Path, name: str, model: Model) -> dict[str, Any]:
    """The folder's index, if it holds this model's pipeline whole and in safetensors.

    Raises:
        ConfigError: no pipeline, another one, a component without its files, weights that are missing
            or pickled, or a component that needs code from the folder.
    """
    index = _read_json(folder / INDEX, f"no pipeline of diffusers: {folder} has no readable {INDEX}")
    wanted, found = model.pipeline.rpartition(":")[2], index.get("_class_name")
    if found != wanted:
        rows = [row for row, other in MODELS.items() if other.pipeline.rpartition(":")[2] == found]
        hint = f"; set model={rows[0]}" if rows else ""
        raise ConfigError(f"{folder} holds a {found}, and {name} needs a {wanted}{hint}")
    for component, (library, kind) in components(index).items():
        if library not in LIBRARIES and component not in model.own:
            raise ConfigError(
                f"{folder}: {component} is a {kind} from {library!r}, which is code in the folder and not run"
            )
        _check_component(folder / component)
    return index


def components(index: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Library and class of each component that the index says is there."""
    pairs = {
        key: value for key, value in index.items() if isinstance(value, list) and not key.startswith("_")
    }
    return {key: (value[0], value[1]) for key, value in pairs.items() if value[0] is not None}


def find_lora(lora: str, file: str | None) -> Path:
    """The adapter's file, downloaded if `lora` names a repository at the hub.

    Raises:
        ConfigError: there is none, there are several, or it is pickled.
    """
    path = Path(lora).expanduser()
    if path.is_dir():
        if file is not None:
            path = path / file
        else:
            found = sorted(path.glob("*.safetensors"))
            if len(found) != 1:
                names = ", ".join(each.name for each in found) or "none"
                raise ConfigError(f"lora: {path} holds {names}; name one .safetensors file as lora_file")
            path = found[0]
    elif not path.exists() and path.suffix not in (".safetensors", *_PICKLED) and _HUB.fullmatch(lora):
        return _download_lora(lora, file)
    _refuse_pickle(path)
    if not path.is_file() or path.suffix != ".safetensors":
        raise ConfigError(f"lora: {path} is no .safetensors file")
    return path


def _download_lora(repository: str, file: str | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    if file is None:
        raise ConfigError(f"lora: name the file of {repository} as lora_file")
    _refuse_pickle(Path(file))
    try:
        return Path(hf_hub_download(repository, file))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ConfigError(
            f"lora: {file} of {repository} is not here and could not be downloaded ({_first_line(error)})"
        ) from error


def _check_component(part: Path) -> None:
    if not part.is_dir():
        raise ConfigError(f"{part.parent}: {INDEX} names {part.name}, and there is no such folder")
    if not (part / "config.json").is_file():
        return  # a tokenizer, a processor or a scheduler: no weights
    files = {path.name for path in part.iterdir()}
    if not any(name.endswith(".safetensors") for name in files):
        pickled = sorted(name for name in files if name.endswith(_PICKLED))
        if pickled:
            _refuse_pickle(part / pickled[0])
        raise ConfigError(f"{part} holds no weights (*.safetensors)")
    for shards in part.glob("*.safetensors.index.json"):
        named = set(_read_json(shards, f"{shards} is not readable").get("weight_map", {}).values())
        if named - files:
            raise ConfigError(f"{part} lacks {', '.join(sorted(named - files))}, which {shards.name} names")


def _refuse_pickle(path: Path) -> None:
    if path.suffix in _PICKLED:
        raise ConfigError(
            f"{path} is pickled, and reading a pickle can run code: convert it to safetensors "
            "(`save_pretrained` writes them)"
        )


def _read_json(path: Path, otherwise: str) -> dict[str, Any]:
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(otherwise) from error
    if not isinstance(record, dict):
        raise ConfigError(otherwise)
    return record


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
