"""From raw trajectories to training sets: what `thinkedit build-data` does.

    trajectories -> graded, kept, truncated, sane samples -> a row each in the index
    index        -> duplicates, balance, split
    chosen rows  -> read again from their lines, unrolled -> records in every format

Every step streams. The sets depend on the trajectories, the settings and the seed alone, not on the
order in which the trajectories come.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import msgspec

from thinkedit.configs.schema import DataConfig
from thinkedit.data import pictures
from thinkedit.data.examine import Examiner, Exclusion
from thinkedit.data.figures import Figures
from thinkedit.data.formats.lines import Line
from thinkedit.data.formats.records import Expert, ImageRef, Record, Score
from thinkedit.data.formats.trajectories import Located, Trajectory, files_of, parse, read_trajectories
from thinkedit.data.index import Address, Index
from thinkedit.data.report import write_report
from thinkedit.data.rules.fates import Fate, Fault
from thinkedit.data.rules.summaries import Summary, summary
from thinkedit.data.rules.unroll import Sample
from thinkedit.data.select import select
from thinkedit.data.writers import JsonLines, Outputs
from thinkedit.envs.protocol import Protocol
from thinkedit.errors import ConfigError, DataError

OnProgress = Callable[[str, int, int], None]
"""Called with a stage's name, how much of it is done, and the whole."""

REPORT, PAGE = "report.json", "report.html"
DROPPED = "dropped.jsonl"
_TOLD_EVERY = 500  # trajectories


def build(
    source: Path,
    out: Path,
    config: DataConfig,
    protocol: Protocol,
    *,
    seed: int = 0,
    on_progress: OnProgress = lambda stage, done, whole: None,
) -> Figures:
    """Read trajectories and write the training sets.

    Args:
        source: a trajectory file, or a folder of them.
        out: a folder that appears when everything in it is written.

    Raises:
        DataError: a line that is no trajectory, an id used twice, an image that can't be read;
            names file, line and field.
        ConfigError: `out` exists.
    """
    if out.exists():
        raise ConfigError(f"{out} exists: choose another folder, or delete it")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # what an interrupted build left
    partial.mkdir(parents=True)
    build = _Build(config, seed, Examiner(config, protocol), on_progress)
    scratch = partial / ".index.sqlite"
    with Index(scratch) as index:
        build.read(source, index, partial)
        build.figures.selection = select(index, config, seed)
        with Outputs(partial, config.formats, protocol) as outputs:
            build.write(index, outputs)
        build.figures.fates = index.fates()
        _write_refused(index, partial / DROPPED)
    scratch.unlink()
    report = build.figures.plain()
    (partial / REPORT).write_text(json.dumps(report, indent=1), encoding="utf-8")
    write_report(partial / PAGE, report, out.name)
    partial.rename(out)
    return build.figures


class _Build:
    """One build under way."""

    def __init__(self, config: DataConfig, seed: int, examiner: Examiner, on_progress: OnProgress) -> None:
        self.figures = Figures()
        self._config, self._seed, self._examiner, self._tell = config, seed, examiner, on_progress

    def read(self, source: Path, index: Index, folder: Path) -> None:
        """First pass: a row in the index for every trajectory."""
        exclusion = Exclusion(self._config.exclude_images, self._config.exclude_distance)
        sizes = {file: file.stat().st_size for file in files_of(source)}
        whole, before, file = sum(sizes.values()), 0, None
        for n, located in enumerate(read_trajectories(source)):
            line, trajectory = located.line, located.trajectory
            self.figures.saw(trajectory)
            index.add(line, trajectory.trajectory_id, n, self._examined(n, located, exclusion))
            if n % _TOLD_EVERY == 0:
                if line.file != file:
                    before, file = sum(sizes[earlier] for earlier in sizes if earlier < line.file), line.file
                self._tell("read", before + line.offset, whole)
        self._tell("read", whole, whole)

    def _examined(self, n: int, located: Located, exclusion: Exclusion) -> Summary | Fate:
        trajectory, line = located.trajectory, located.line
        kept = self._examiner.kept(trajectory)
        if isinstance(kept, Fate):
            return kept
        path = _path(trajectory.source_image, line.file)
        try:
            if exclusion(path):
                return Fate.BENCHMARK
            source = pictures.sha256_of(path)
        except DataError as error:
            raise DataError(f"{line.where}: source_image: {error}") from error
        replies = [reply for _, reply in self._examiner.samples(kept)]
        faults = [reply for reply in replies if isinstance(reply, Fault)]
        self.figures.faults.update(faults)
        sft_steps = len(replies) - len(faults)
        row = summary(kept, n=n, source=source, sft_steps=sft_steps, seed=self._seed)
        self.figures.kept(kept, row)
        return row

    def write(self, index: Index, outputs: Outputs) -> None:
        """Second pass: the chosen trajectories as records, in the seed's order."""
        whole = index.count(fate=Fate.SFT) + index.count(fate=Fate.RL)
        done = 0
        with closing(_Reader()) as reader:
            for fate, emit in ((Fate.SFT, self._sft), (Fate.RL, self._rl)):
                for address in index.addresses("place", fate):
                    line = reader.read(address)
                    kept = self._examiner.kept(parse(line))
                    assert isinstance(kept, Trajectory), f"{line.where}: chosen in the first pass"
                    emit(kept, line, outputs)
                    done += 1
                    if done % _TOLD_EVERY == 0:
                        self._tell("write", done, whole)
        self._tell("write", whole, whole)

    def _sft(self, kept: Trajectory, line: Line, outputs: Outputs) -> None:
        for sample, reply in self._examiner.samples(kept):
            if not isinstance(reply, Fault):
                record = _record(kept, sample.edit, line, sample)
                self.figures.wrote(record)
                outputs.sft(record, reply)

    def _rl(self, kept: Trajectory, line: Line, outputs: Outputs) -> None:
        for i in range(len(kept.steps)):
            record = _record(kept, i, line, None)
            self.figures.wrote(record)
            outputs.rl(record)


class _Reader:
    """Reads lines by address; keeps the last file open."""

    def __init__(self) -> None:
        self._file: BinaryIO | None = None
        self._path: Path | None = None

    def read(self, address: Address) -> Line:
        if self._file is None or address.path != self._path:
            self.close()
            self._file, self._path = open(address.path, "rb"), address.path  # noqa: SIM115 - kept open
        self._file.seek(address.offset)
        return Line(address.path, address.line, address.offset, self._file.read(address.size))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _record(kept: Trajectory, i: int, line: Line, sample: Sample | None) -> Record:
    """Edit i of a kept trajectory as an SFT record (with a sample) or as a state for RL."""
    step = kept.steps[i]
    score = step.score
    assert score is not None
    expert = None
    if step.expert is not None:
        said, note = step.expert, kept.expert
        model = said.model or (note.model or note.name if note else None)
        expert = Expert(model=model, reason=said.reason, next_prompt=said.next_prompt, stop=said.stop)
    return Record(
        uid=f"{kept.trajectory_id}/{i}",
        trajectory_id=kept.trajectory_id,
        step=i,
        n_steps=len(kept.steps),
        task_type=kept.task_type,
        source_dataset=kept.source_dataset,
        editor=kept.editor,
        source_image=_image(kept.source_image, kept.source_sha256, line, "source_image"),
        edited_image=_image(step.image, step.image_sha256, line, f"steps[{i}].image"),
        instruction=kept.instruction,
        prompt=step.prompt,
        score=Score.of(score.semantic, score.quality, score.judge_id, score.prompt_hash),
        expert=expert,
        kind=sample.kind if sample else None,
        answer=sample.answer if sample else None,
        split="sft" if sample else "rl",
    )


def _image(image: str, sha256: str | None, line: Line, field: str) -> ImageRef:
    try:
        found = pictures.describe(_path(image, line.file))
    except DataError as error:
        raise DataError(f"{line.where}: {field}: {error}") from error
    if sha256 is not None and found.sha256 != sha256:
        raise DataError(f"{line.where}: {field}: {found.path} is not the picture that was collected (sha256)")
    return found


def _path(image: str, file: Path) -> str:
    return os.path.join(_folder(file), image)  # an absolute image stays as it is


@lru_cache(64)
def _folder(file: Path) -> str:
    return str(file.parent.absolute())


def _write_refused(index: Index, path: Path) -> None:
    """Why each trajectory that is in no set is in none."""
    dropped = JsonLines(path)
    for trajectory_id, fate in index.refused():
        dropped.write(msgspec.json.encode({"trajectory_id": trajectory_id, "reason": fate}))
    dropped.close()
