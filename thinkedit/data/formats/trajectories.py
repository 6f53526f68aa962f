"""Raw trajectories, one JSON line each: what `thinkedit collect` writes and `build-data` reads.

    {"trajectory_id", "task_type", "instruction", "source_image",
     "steps": [{"prompt", "image",
                "score": {"semantic", "quality"} | null,
                "expert": {"reason", "next_prompt", "stop"} | null}]}

Step i is the edit that `prompt` gave, its scores, and what the expert said when it saw it. Image
paths are absolute or relative to the file. Other keys are optional, unknown ones are ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from thinkedit.data.formats.lines import Line, Mark, Text, decode, read_lines
from thinkedit.data.formats.records import Editor
from thinkedit.errors import DataError
from thinkedit.types import Scores

NamedJudge = tuple[str | None, str | None]
"""judge_id and prompt_hash of a score; None where nobody wrote down who gave it."""


class Score(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A verdict of one edit against the original instruction, and whose.

    notes: the judge's, its raw replies too.
    """

    semantic: Mark
    quality: Mark
    judge_id: str | None = None
    prompt_hash: str | None = None
    notes: dict[str, Any] = {}

    @property
    def overall(self) -> float:
        """O = sqrt(semantic * quality), to nine decimals: 3 * 1.2 and 1.8 * 2 are a tie, not an ulp apart."""
        return round(Scores(self.semantic, self.quality).overall, 9)

    @property
    def lowest(self) -> float:
        return min(self.semantic, self.quality)

    @property
    def judge(self) -> NamedJudge:
        return self.judge_id, self.prompt_hash


class Remark(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an expert said of an edit. It gives no score.

    next_prompt: null when it is satisfied. raw: its reply as it came. unread: replies before it, as they
    came, that could not be read. model: as its server names the one that replied, a snapshot for example.
    """

    reason: str
    next_prompt: str | None
    stop: bool
    raw: str | None = None
    unread: tuple[str, ...] = ()
    model: str | None = None
    latency_s: float | None = None


class Step(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One edit. score: null when nobody could grade it; expert: null when none looked at it.

    refused: what the judge said that would not grade it.
    """

    prompt: Text
    image: Text
    score: Score | None
    expert: Remark | None
    image_sha256: str | None = None
    latency_s: float | None = None
    refused: str | None = None


class ExpertNote(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which expert looked. model: as it was asked for. settings: sampling, hash of what it is asked."""

    name: str
    model: str | None = None
    settings: dict[str, Any] = {}


class Trajectory(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The edits of one source image, in the order in which they were made.

    task_uid, split, index: of the task that it was collected for. *_sha256: of the files' bytes.
    """

    trajectory_id: Text
    task_type: Text
    instruction: Text
    source_image: Text
    steps: Annotated[tuple[Step, ...], Meta(min_length=1)]
    task_uid: str | None = None
    split: str | None = None
    index: int | None = None
    source_dataset: str | None = None
    source_sha256: str | None = None
    editor: Editor | None = None
    expert: ExpertNote | None = None

    def __post_init__(self) -> None:
        judges = {step.score.judge for step in self.steps if step.score}
        if len(judges) > 1:
            named = " and ".join(sorted(f"{name} ({prompt})" for name, prompt in judges))
            raise ValueError(f"steps: scores of different judges can't be compared: {named}")

    @property
    def judge(self) -> NamedJudge | None:
        """Whose its scores are; None without any."""
        return next((step.score.judge for step in self.steps if step.score), None)


class Located(Struct, frozen=True):
    """A trajectory and the line that holds it."""

    line: Line
    trajectory: Trajectory


def overalls(trajectory: Trajectory) -> list[float]:
    """O of every edit of a graded trajectory."""
    return [step.score.overall for step in trajectory.steps if step.score is not None]


_DECODER = msgspec.json.Decoder(Trajectory)
encode = msgspec.json.Encoder().encode


def files_of(path: Path) -> list[Path]:
    """A trajectory file itself, or those of a folder in the order of their names.

    Raises:
        DataError: no such path, or a folder without any.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}: the folder holds no .jsonl file of trajectories")
    return files


def parse(line: Line) -> Trajectory:
    """
    Raises:
        DataError: names file, line and field.
    """
    return decode(_DECODER, line.data, line.where)


def read_trajectories(path: Path) -> Iterator[Located]:
    """The trajectories of a file or folder, with the lines that hold them.

    Raises:
        DataError: names file, line and field of what is not as described above.
    """
    yield from read_files(files_of(path))


def read_files(files: Iterable[Path]) -> Iterator[Located]:
    """As `read_trajectories`, of files that are listed already."""
    for file in files:
        for line in read_lines(file):
            yield Located(line, parse(line))
