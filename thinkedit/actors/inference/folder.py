"""A run on disk: every picture as it is made, then the result, a contact sheet and the record."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from thinkedit.actors.inference.as_json import picture_name, result_json
from thinkedit.actors.inference.records import Edited, EditResult, Event, Finished, Started
from thinkedit.actors.inference.sheet import contact_sheet
from thinkedit.errors import DataError
from thinkedit.types import RGB

SOURCE, RESULT, SHEET, RECORD = "source.png", "result.png", "sheet.png", "edit.json"


def new_folder(path: Path) -> Path:
    """Make a folder that holds nothing yet.

    Raises:
        DataError: there is something in it, or it can't be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        taken = any(path.iterdir())
    except OSError as error:
        raise DataError(f"{path}: can't be made ({error.strerror}); choose another folder") from error
    if taken:
        raise DataError(f"{path} is not empty; choose another folder, so that nothing is overwritten")
    return path


def recorder(folder: Path) -> Callable[[Event], None]:
    """Writes a run into `folder` as its events come, so that an interrupted one leaves its pictures."""

    def record(event: Event) -> None:
        match event:
            case Started(source=source):
                write_png(source, folder / SOURCE)
            case Edited(attempt):
                write_png(attempt.image, folder / picture_name(attempt.index))
            case Finished(result):
                if result.chosen is not None:
                    write_png(result.image, folder / RESULT)
                write_png(contact_sheet(result), folder / SHEET)
                text = json.dumps(result_json(result), indent=2, ensure_ascii=False)
                # What is no Unicode text becomes \\udc80 and the like, which JSON reads back.
                (folder / RECORD).write_text(text + "\n", encoding="utf-8", errors="backslashreplace")

    return record


def save(result: EditResult, folder: str | Path) -> Path:
    """Write a finished run into a new or empty folder.

    Raises:
        DataError: the folder holds something, or can't be made.
    """
    path = new_folder(Path(folder))
    record = recorder(path)
    record(Started(result.source, result.instruction, result.options))
    for attempt in result.attempts:
        record(Edited(attempt))
    record(Finished(result))
    return path


def write_png(image: RGB, path: Path) -> None:
    Image.fromarray(image).save(path, "PNG")
