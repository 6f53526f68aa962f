"""Going part of the way back from a trained model to the one that training started from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from thinkedit.errors import ThinkEditError

WEIGHTS = "*.safetensors"


class WeightsDiffer(ThinkEditError):
    """Two models that can't be mixed: tensors of other names or shapes."""


def interpolate(start: str | Path, trained: Path, share: float) -> None:
    """Make each weight of `trained` start + share * (trained - start), in place, file by file.

    The reward-KL trade-off of models on this line is better than that of stopping early: what all steps
    agreed on grows with the share, what noise did with each step goes down faster (WARP, stage "linear
    interpolation towards initialization": Ramé et al. 2024, arXiv 2406.16768).

    Args:
        start: a Hugging Face folder, or the name of one on the hub, which training downloaded.
        share: in [0, 1]; 1 changes nothing.

    Raises:
        WeightsDiffer: `trained` has no safetensors, or a tensor that `start` lacks or has in another shape.
    """
    if share == 1:
        return
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    files = sorted(trained.glob(WEIGHTS))
    if not files:
        raise WeightsDiffer(f"{trained} holds no {WEIGHTS}: grpo.interpolation=1 exports it as it is")
    places = _places(_folder(start))
    for file in files:
        mixed = load_file(file)
        for name, end in mixed.items():
            if name not in places:
                raise WeightsDiffer(f"{file} holds {name!r}, which {start} has not")
            with safe_open(places[name], "pt") as opened:
                begin = opened.get_tensor(name)
            if begin.shape != end.shape:
                raise WeightsDiffer(
                    f"{name!r} is {tuple(end.shape)} in {file}, {tuple(begin.shape)} in {start}"
                )
            mixed[name] = begin.float().lerp(end.float(), share).to(end.dtype).contiguous()
        save_file(mixed, file, metadata={"format": "pt"})


def _folder(model: str | Path) -> Path:
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(str(model), allow_patterns=WEIGHTS))


def _places(folder: Path) -> Mapping[str, Path]:
    """The file of each tensor."""
    from safetensors import safe_open

    found = {}
    for file in sorted(folder.glob(WEIGHTS)):
        with safe_open(file, "pt") as opened:
            found.update(dict.fromkeys(opened.keys(), file))
    return found
