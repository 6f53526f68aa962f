"""A run on disk: every picture as it is made, then the result, a contact sheet and the record."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image

from thinkedit.actors.inference.records import Attempt, Edited, EditResult, Event, Finished, Started, Thought
from thinkedit.actors.inference.sheet import contact_sheet
from thinkedit.errors import DataError
from thinkedit.types import RGB, Verdict

SOURCE, RESULT, SHEET, RECORD = "source.png", "result.png", "sheet.png", "edit.json"


def picture_name(index: int) -> str:
    """The file of an edit."""
    return f"edit_{index}.png"


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
                write_png(result.image, folder / RESULT)
                write_png(contact_sheet(result), folder / SHEET)
                text = json.dumps(as_json(result), indent=2, ensure_ascii=False)
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


def as_json(result: EditResult) -> dict[str, Any]:
    """Everything but the pixels, as plain data."""
    return {
        "thinkedit": version("thinkedit"),
        "instruction": result.instruction,
        **asdict(result.options),
        **result.about,
        "size": [result.source.shape[1], result.source.shape[0]],
        "rewrite": None if result.rewrite is None else _thought(result.rewrite),
        "edits": [_attempt(attempt) for attempt in result.attempts],
        "chosen": result.chosen,
        "stop": result.stop.value,
        "detail": result.detail,
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "file": picture_name(attempt.index),
        "prompt": attempt.prompt,
        "seconds": round(attempt.seconds, 3),
        "critique": None if attempt.thought is None else _thought(attempt.thought),
        "verdict": None if attempt.verdict is None else _verdict(attempt.verdict),
        "judge_fault": attempt.judge_fault,
    }


def _thought(thought: Thought) -> dict[str, Any]:
    return {
        "reason": thought.reason,
        "predicted": None if thought.predicted is None else asdict(thought.predicted),
        "next_prompt": thought.prompt,
        "end": None if thought.end is None else thought.end.value,
        "reply": thought.reply,
        "faults": list(thought.faults),
        "seconds": round(thought.seconds, 3),
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        **asdict(verdict.scores),
        "judge_id": verdict.judge_id,
        "prompt_hash": verdict.prompt_hash,
    }
