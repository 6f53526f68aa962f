"""GEdit-Bench: eleven kinds of edit in English and Chinese, judged by VIEScore's two questions.

Layout: the data set's parquet files (key, task_type, instruction, instruction_language, input_image,
Intersection_exist); results in `fullset/{task_type}/{language}/{key}.png`, each beside its source in
`{key}_SRCIMG.png`, where the official script looks for it. The source that is edited and judged is
`input_image`, everywhere the same.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from math import sqrt
from pathlib import Path
from typing import Any

from thinkedit.envs.editors.pictures import encode_png, scale
from thinkedit.envs.images import read_rgb
from thinkedit.errors import DataError, UnknownName
from thinkedit.evals.benchmarks.base import Ask, Benchmark, Column, Item, Marks, Part, Table, mean_of, of_kind
from thinkedit.evals.benchmarks.files import text_of
from thinkedit.rewards.judges.verdict_text import read_marks
from thinkedit.rewards.judges.viescore_prompts import QUESTIONS
from thinkedit.types import RGB

KINDS = (
    "background_change",
    "color_alter",
    "material_alter",
    "motion_change",
    "ps_human",
    "style_change",
    "subject-add",
    "subject-remove",
    "subject-replace",
    "text_change",
    "tone_transfer",
)
LANGUAGES = ("en", "cn")
_FIELDS = ("key", "task_type", "instruction", "instruction_language", "Intersection_exist")


class GEdit(Benchmark):
    name = "gedit"
    title = "GEdit-Bench"
    version = f"viescore-{QUESTIONS.version}"
    prefixes = ("fullset", "")

    def __init__(self, data: Path, language: str | None = None) -> None:
        """
        Args:
            data: a folder with the parquet files, at any depth, or one such file.
            language: "en" or "cn" takes that half alone; None takes what is there.

        Raises:
            UnknownName: another language.
            DataError: no parquet files, none of that language in them, or a record that is not as it
                should be.
        """
        if language not in (None, *LANGUAGES):
            raise UnknownName("language", str(language), LANGUAGES)
        files = [data] if data.is_file() else sorted(data.rglob("*.parquet"))
        if not files:
            raise DataError(f"{data}: {self.title} expects the data set's parquet files there")
        every = [item for file in files for item in _items(file)]
        self.items = [item for item in every if language in (None, item.facts["instruction_language"])]
        if not self.items:
            raise DataError(f"{data}: no items in language {language!r}; leave --language out to take all")
        found = {item.facts["instruction_language"] for item in self.items}
        self.languages = [known for known in LANGUAGES if known in found]
        self.official_size = 606 * len(self.languages)
        seen: set[str] = set()
        for item in self.items:
            if item.id in seen:
                raise DataError(f"{data}: item {item.id!r} is there twice")
            seen.add(item.id)

    def extras(self, folder: Path, item: Item, edited: RGB) -> Mapping[Path, bytes]:
        """The source: the official script opens it beside the result, and gives no score without."""
        return {folder / self.prefixes[0] / f"{item.path}_SRCIMG.png": encode_png(item.source())}

    def asks(self, item: Item) -> Sequence[Ask]:
        def both(edited: RGB) -> tuple[RGB, RGB]:
            source = item.source()
            return source, _at_size(edited, source)

        def alone(edited: RGB) -> tuple[RGB]:
            return (_at_size(edited, item.source()),)

        text = {"SC": QUESTIONS.about(item.instruction), "PQ": QUESTIONS.quality}
        shown: dict[str, Callable[[RGB], Sequence[RGB]]] = {"SC": both, "PQ": alone}
        return [
            Ask(
                metric=metric,
                text=text[metric],
                system=QUESTIONS.system,
                schema=QUESTIONS.schema,
                read=partial(_lower, metric),
                pictures=shown[metric],
            )
            for metric in ("SC", "PQ")
        ]

    def tables(self) -> Sequence[Table]:
        return [
            Table(
                key=f"gedit-{language}-{subset}",
                title=f"{self.title}-{language.upper()}, {subset} set",
                columns=self._columns(),
                keep=partial(_in_set, language, subset == "intersection"),
            )
            for language in self.languages
            for subset in ("full", "intersection")
        ]

    @staticmethod
    def _columns() -> list[Column]:
        def by_kind(item: Item) -> str:
            return item.kind

        # The macro mean over kinds, of each item's own root: not the root of the two means.
        named: dict[str, Part] = {"SC": mean_of("SC"), "PQ": mean_of("PQ")}
        columns = [Column(name=f"G_{name}", part=part, stratum=by_kind) for name, part in named.items()]
        columns.append(Column(name="G_O", part=_overall, stratum=by_kind, headline=True))
        return columns + [Column(name=kind, part=_overall, keep=of_kind(kind)) for kind in KINDS]


def _overall(item: Item, marks: Marks) -> tuple[float, float]:
    return sqrt(marks["SC"] * marks["PQ"]), 1.0


def _lower(metric: str, text: str) -> dict[str, float]:
    return {metric: min(read_marks(text, QUESTIONS.top))}


def _in_set(language: str, intersection: bool, item: Item) -> bool:
    facts = item.facts
    return facts["instruction_language"] == language and (facts["Intersection_exist"] or not intersection)


def _at_size(edited: RGB, source: RGB) -> RGB:
    height, width = source.shape[:2]
    return edited if edited.shape == source.shape else scale(edited, (width, height))


def _items(file: Path) -> list[Item]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
        groups = [
            table.read_row_group(group, columns=list(_FIELDS)).to_pylist()
            for group in range(table.num_row_groups)
        ]
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file}: {error}") from error
    return [
        _item(file, group, row, record)
        for group, records in enumerate(groups)
        for row, record in enumerate(records)
    ]


def _item(file: Path, group: int, row: int, record: Mapping[str, Any]) -> Item:
    where = f"{file}, row {row} of group {group}"
    for field in _FIELDS:
        if field not in record:
            raise DataError(f"{where}: no field {field!r}")
    language, kind = text_of(record, "instruction_language", where), text_of(record, "task_type", where)
    key = str(record["key"])
    if language not in LANGUAGES:
        raise DataError(f"{where}: instruction_language: expected en or cn, got {language!r}")
    if kind not in KINDS:
        raise DataError(f"{where}: task_type: {kind!r} is not one of {', '.join(KINDS)}")
    return Item(
        id=f"{language}/{key}",
        kind=kind,
        instruction=text_of(record, "instruction", where),
        path=f"{kind}/{language}/{key}",
        sources=[partial(_source, file, group, row)],
        facts=dict(record),
    )


def _source(file: Path, group: int, row: int) -> RGB:
    return read_rgb(io.BytesIO(_pictures(file, group)[row]))


@lru_cache(maxsize=2)  # items are taken in order, so a group is read about once
def _pictures(file: Path, group: int) -> list[bytes]:
    import pyarrow.parquet as pq

    column = pq.ParquetFile(file).read_row_group(group, columns=["input_image"])["input_image"]
    return [picture["bytes"] for picture in column.to_pylist()]
