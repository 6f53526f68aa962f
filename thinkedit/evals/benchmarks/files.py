"""Reads benchmarks' files, with errors that name file and field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from thinkedit.envs.images import read_rgb
from thinkedit.errors import DataError
from thinkedit.evals.benchmarks.base import Loader


def read_json(path: Path) -> Any:
    """
    Raises:
        DataError: no such file, or no JSON in it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {error}") from error


def one_of(folder: Path, names: tuple[str, ...], what: str) -> Path:
    """The file itself, or the first of `names` in the folder.

    Raises:
        DataError: neither.
    """
    if folder.is_file():
        return folder
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder}: {what} expects a file {' or '.join(names)} there, or name the file itself")


def text_of(record: Mapping[str, Any], key: str, where: str, *, empty: bool = False) -> str:
    """
    Args:
        empty: whether a missing or empty text will do; it is then "".

    Raises:
        DataError: no text, or an empty one.
    """
    value = record.get(key)
    if empty and absent(value):
        return ""
    if not isinstance(value, str) or not (value.strip() or empty):
        raise DataError(f"{where}: {key}: expected text, got {value!r}")
    return value


def absent(value: Any) -> bool:
    """Whether a field of a table is empty: null, NaN, or "" (tables written by pandas have all three)."""
    return value is None or value == "" or value != value


def picture(path: Path) -> Loader:
    """A loader of a picture file."""
    return partial(read_rgb, path)


def known_picture(path: Path, where: str) -> Loader:
    """As `picture`, of a file that is there.

    Raises:
        DataError: it is not.
    """
    if not path.is_file():
        raise DataError(f"{where}: there is no picture {path}")
    return picture(path)


def quoted(text: str) -> str:
    """Text from outside in a question: a JSON string, so that its end and its line breaks are plain."""
    return json.dumps(encodable(text), ensure_ascii=False)


def encodable(text: str) -> str:
    """The text without half characters (lone surrogates), which JSON may hold and no file or database."""
    return text.encode("utf-8", "replace").decode()
