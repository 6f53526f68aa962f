"""Episodes as rows of a parquet table and back. `SCHEMA` is the format of the trajectory store."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, TypeVar, cast

import numpy as np
import pyarrow as pa

from thinkedit.actors.images import ImageFolder, ImageRef, image_key
from thinkedit.errors import DataError
from thinkedit.types import (
    RGB,
    Critique,
    End,
    Episode,
    Outcome,
    ParseError,
    RewardBreakdown,
    Sampling,
    Scores,
    Task,
    Turn,
    Verdict,
)

SCHEMA_VERSION = 1
VERSION_KEY = b"thinkedit.trajectories"

_VERDICT = pa.struct(
    [
        ("semantic", pa.float64()),
        ("quality", pa.float64()),
        ("judge_id", pa.string()),
        ("prompt_hash", pa.string()),
        ("notes", pa.string()),  # JSON
    ]
)
_NUMBERS = pa.map_(pa.string(), pa.float64())
_TURN = pa.struct(
    [
        ("index", pa.int32()),
        ("prompt", pa.string()),
        ("reply", pa.string()),
        ("think", pa.string()),  # the critique; null when malformed
        ("predicted_semantic", pa.float64()),
        ("predicted_quality", pa.float64()),
        ("answer", pa.string()),
        ("error", pa.string()),
        ("outcome", pa.string()),
        ("before", _VERDICT),
        ("after", _VERDICT),
        ("edited", pa.string()),  # image key
        ("total", pa.float64()),  # null exactly when the outcome has no reward
        ("terms", _NUMBERS),
        ("weights", _NUMBERS),
        ("kept", pa.bool_()),
        ("terminated", pa.bool_()),
        ("truncated", pa.bool_()),
        ("end", pa.string()),
        ("state_key", pa.string()),
        ("detail", pa.string()),
    ]
)
SCHEMA = pa.schema(
    [
        ("uid", pa.string()),
        ("group", pa.string()),
        ("step", pa.int64()),
        ("seed", pa.int64()),
        ("outcome", pa.string()),
        ("task_uid", pa.string()),
        ("instruction", pa.string()),
        ("task_type", pa.string()),
        ("split", pa.string()),
        ("reference", pa.string()),  # JSON
        ("source", pa.string()),  # image key
        ("first_edit", pa.string()),  # image key
        ("first", _VERDICT),
        ("turns", pa.list_(_TURN)),
        ("policy_versions", pa.list_(pa.int64())),  # one per sampled reply
        ("prompt_ids", pa.list_(pa.list_(pa.int32()))),  # these three are null without `keep_tokens`
        ("token_ids", pa.list_(pa.list_(pa.int32()))),
        ("logprobs", pa.list_(pa.list_(pa.float64()))),
        ("timings", _NUMBERS),
        ("tags", pa.string()),  # JSON
    ],
    metadata={VERSION_KEY: str(SCHEMA_VERSION)},
)
TOKEN_COLUMNS = ("prompt_ids", "token_ids", "logprobs")
PLAIN_COLUMNS = [name for name in SCHEMA.names if name not in TOKEN_COLUMNS]


def _load(held: RGB | ImageRef) -> RGB:
    return held.folder.get(held.key) if isinstance(held, ImageRef) else held


def _key(held: RGB | ImageRef) -> str:
    return held.key if isinstance(held, ImageRef) else image_key(held)


Record = TypeVar("Record", Task, Turn, Episode)


def _fields(record: Any) -> dict[str, Any]:
    """A record's fields, images still as references where nobody looked at them."""
    names = [field.name for field in dataclasses.fields(record)]
    return {name: getattr(record, f"_{name}" if hasattr(record, f"_{name}") else name) for name in names}


def changed(record: Record, **changes: Any) -> Record:
    """`dataclasses.replace` that decodes no image of a stored record."""
    return type(record)(**(_fields(record) | changes))


def _rebuild(cls: type[Any], fields: dict[str, Any]) -> Any:
    return cls(**fields)


class _Lazy:
    """Copies and pickles by reference, so that stored episodes travel light between processes."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), _fields(self))


class StoredTask(_Lazy, Task):
    """A task read back: `source` is decoded when it is looked at; `source_key` names its file."""

    __slots__ = ("_source",)
    _source: RGB | ImageRef

    @property
    def source(self) -> RGB:
        return _load(self._source)

    @source.setter
    def source(self, value: RGB | ImageRef) -> None:
        object.__setattr__(self, "_source", value)

    @property
    def source_key(self) -> str:
        return _key(self._source)


class StoredTurn(_Lazy, Turn):
    """A turn read back: `edited` is decoded when it is looked at; `edited_key` names its file."""

    __slots__ = ("_edited",)
    _edited: RGB | ImageRef

    @property
    def edited(self) -> RGB:
        return _load(self._edited)

    @edited.setter
    def edited(self, value: RGB | ImageRef) -> None:
        object.__setattr__(self, "_edited", value)

    @property
    def edited_key(self) -> str:
        return _key(self._edited)


class StoredEpisode(_Lazy, Episode):
    """An episode read back: `first_edit` is decoded when it is looked at."""

    __slots__ = ("_first_edit",)
    _first_edit: RGB | ImageRef | None

    @property
    def first_edit(self) -> RGB | None:
        return None if self._first_edit is None else _load(self._first_edit)

    @first_edit.setter
    def first_edit(self, value: RGB | ImageRef | None) -> None:
        self._first_edit = value

    @property
    def first_edit_key(self) -> str | None:
        return None if self._first_edit is None else _key(self._first_edit)


def to_row(episode: Episode, images: ImageFolder, *, keep_tokens: bool) -> dict[str, Any]:
    """`episode` as a row of `SCHEMA`; its images are written to `images`."""
    task = episode.task

    def add(owner: object, field: str) -> str:
        held = getattr(owner, f"_{field}", None)
        return images.adopt(held) if isinstance(held, ImageRef) else images.add(getattr(owner, field))

    where = f"episode {episode.uid!r}"
    return {
        "uid": episode.uid,
        "group": episode.group,
        "step": episode.step,
        "seed": episode.seed,
        "outcome": str(episode.outcome),
        "task_uid": task.uid,
        "instruction": _text(task.instruction),
        "task_type": task.task_type,
        "split": task.split,
        "reference": _to_json(task.reference, f"{where}: task.reference"),
        "source": add(task, "source"),
        "first_edit": None if episode.first_edit is None else add(episode, "first_edit"),
        "first": _verdict_row(episode.first, where),
        "turns": [_turn_row(turn, add(turn, "edited"), where) for turn in episode.turns],
        "policy_versions": [s.policy_version for s in episode.sampling],
        "prompt_ids": [s.prompt_ids for s in episode.sampling] if keep_tokens else None,
        "token_ids": [s.token_ids for s in episode.sampling] if keep_tokens else None,
        "logprobs": [s.logprobs for s in episode.sampling] if keep_tokens else None,
        "timings": list(episode.timings.items()),
        "tags": _to_json(episode.tags, f"{where}: tags"),
    }


def to_episode(row: dict[str, Any], images: ImageFolder) -> StoredEpisode:
    """The episode of a row; token columns may be missing."""

    def ref(key: str) -> RGB:
        # The Stored* classes turn the reference into an array on first look.
        return cast(RGB, ImageRef(images, key))

    task = StoredTask(
        uid=row["task_uid"],
        source=ref(row["source"]),
        instruction=row["instruction"],
        task_type=row["task_type"],
        split=row["split"],
        reference=json.loads(row["reference"]),
    )
    return StoredEpisode(
        uid=row["uid"],
        group=row["group"],
        task=task,
        seed=row["seed"],
        first_edit=None if row["first_edit"] is None else ref(row["first_edit"]),
        first=_verdict(row["first"]),
        turns=[_turn(turn, ref(turn["edited"])) for turn in row["turns"]],
        sampling=_sampling(row),
        outcome=Outcome(row["outcome"]),
        timings=dict(row["timings"]),
        step=row["step"],
        tags=json.loads(row["tags"]),
    )


def _turn(row: dict[str, Any], edited: RGB) -> StoredTurn:
    critique = reward = None
    if row["think"] is not None:
        scores = Scores(row["predicted_semantic"], row["predicted_quality"])
        critique = Critique(row["think"], scores, row["answer"])
    if row["total"] is not None:
        reward = RewardBreakdown(total=row["total"], terms=dict(row["terms"]), weights=dict(row["weights"]))
    before = _verdict(row["before"])
    assert before is not None  # the schema's nulls are for `after` and `first` only
    return StoredTurn(
        index=row["index"],
        prompt=row["prompt"],
        reply=row["reply"],
        critique=critique,
        error=None if row["error"] is None else ParseError(row["error"]),
        outcome=Outcome(row["outcome"]),
        before=before,
        after=_verdict(row["after"]),
        edited=edited,
        reward=reward,
        kept=row["kept"],
        terminated=row["terminated"],
        truncated=row["truncated"],
        end=None if row["end"] is None else End(row["end"]),
        state_key=row["state_key"],
        detail=row["detail"],
    )


def _verdict_row(verdict: Verdict | None, where: str) -> dict[str, Any] | None:
    if verdict is None:
        return None
    return {
        "semantic": verdict.scores.semantic,
        "quality": verdict.scores.quality,
        "judge_id": verdict.judge_id,
        "prompt_hash": verdict.prompt_hash,
        "notes": _to_json(verdict.notes, f"{where}: verdict.notes"),
    }


def _turn_row(turn: Turn, edited: str, where: str) -> dict[str, Any]:
    where = f"{where}, turn {turn.index}"
    critique, reward = turn.critique, turn.reward
    return {
        "index": turn.index,
        "prompt": _text(turn.prompt),
        "reply": _text(turn.reply),
        "think": _text(critique.think) if critique else None,
        "predicted_semantic": critique.scores.semantic if critique else None,
        "predicted_quality": critique.scores.quality if critique else None,
        "answer": _text(critique.answer) if critique else None,
        "error": None if turn.error is None else str(turn.error),
        "outcome": str(turn.outcome),
        "before": _verdict_row(turn.before, where),
        "after": _verdict_row(turn.after, where),
        "edited": edited,
        "total": reward.total if reward else None,
        "terms": list(reward.terms.items()) if reward else None,
        "weights": list(reward.weights.items()) if reward else None,
        "kept": turn.kept,
        "terminated": turn.terminated,
        "truncated": turn.truncated,
        "end": None if turn.end is None else str(turn.end),
        "state_key": turn.state_key,
        "detail": _text(turn.detail),
    }


def _verdict(row: dict[str, Any] | None) -> Verdict | None:
    if row is None:
        return None
    return Verdict(
        scores=Scores(row["semantic"], row["quality"]),
        judge_id=row["judge_id"],
        prompt_hash=row["prompt_hash"],
        notes={} if row["notes"] == "{}" else json.loads(row["notes"]),
    )


def _sampling(row: dict[str, Any]) -> list[Sampling]:
    versions = row["policy_versions"]
    empty: list[tuple[()]] = [()] * len(versions)
    prompts, tokens, logprobs = (row.get(name) or empty for name in TOKEN_COLUMNS)
    return [
        Sampling(prompt_ids=tuple(p), token_ids=tuple(t), logprobs=tuple(lp), policy_version=v)
        for p, t, lp, v in zip(prompts, tokens, logprobs, versions, strict=True)
    ]


def _text(text: str) -> str:
    """`text` as UTF-8 can hold it: lone surrogates become the six characters `\\udXXX`."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="backslashreplace").decode()
    return text


def _to_json(value: Mapping[str, Any], where: str) -> str:
    if not value:
        return "{}"
    try:
        return json.dumps(value, default=_jsonable)
    except TypeError as error:
        raise DataError(f"{where} must be JSON to be stored: {error}") from error


def _jsonable(value: object) -> object:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"a {type(value).__name__} has no JSON form")
