"""Runs as plain data, for files and pages; pictures by the names of their files."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from thinkedit.actors.inference.records import Attempt, EditResult, Thought
from thinkedit.types import Verdict


def picture_name(index: int) -> str:
    """The file of an edit."""
    return f"edit_{index}.png"


def result_json(result: EditResult) -> dict[str, Any]:
    """Everything but the pixels, as plain data."""
    return {
        "thinkedit": version("thinkedit"),
        "instruction": result.instruction,
        **asdict(result.options),
        **result.about,
        "size": [result.source.shape[1], result.source.shape[0]],
        "rewrite": None if result.rewrite is None else thought_json(result.rewrite),
        "edits": [attempt_json(attempt) for attempt in result.attempts],
        "chosen": result.chosen,
        "stop": result.stop.value,
        "detail": result.detail,
        "unread": list(result.unread),
    }


def attempt_json(attempt: Attempt) -> dict[str, Any]:
    return {
        "file": picture_name(attempt.index),
        "prompt": attempt.prompt,
        "seconds": round(attempt.seconds, 3),
        "critique": None if attempt.thought is None else thought_json(attempt.thought),
        "verdict": None if attempt.verdict is None else _verdict(attempt.verdict),
        "judge_fault": attempt.judge_fault,
    }


def thought_json(thought: Thought) -> dict[str, Any]:
    return {
        "reason": thought.reason,
        "predicted": None if thought.predicted is None else asdict(thought.predicted),
        "next_prompt": thought.prompt,
        "end": None if thought.end is None else thought.end.value,
        "reply": thought.reply,
        "faults": list(thought.faults),
        "unread": list(thought.unread),
        "seconds": round(thought.seconds, 3),
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        **asdict(verdict.scores),
        "judge_id": verdict.judge_id,
        "prompt_hash": verdict.prompt_hash,
    }
