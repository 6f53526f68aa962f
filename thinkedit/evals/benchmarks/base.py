"""What a benchmark is: items, where their pictures lie, what a judge is asked, and how marks add up.

One module per benchmark says these four things; generating, judging, storing, counting and reporting
are the same for all and know none of them by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from thinkedit.actors.images import image_key
from thinkedit.types import RGB

Marks = Mapping[str, float]
"""What a judge said of one picture, by the benchmark's own names, on its own scale."""

Read = Callable[[str], dict[str, float]]
"""Reads the marks out of a raw reply. Raises ValueError for one that is not what was asked for."""

Loader = Callable[[], RGB]
"""Reads a picture when it is needed. Raises DataError when it can't."""

SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True, kw_only=True, eq=False)  # no slots: the key is kept
class Item:
    """One edit to make and grade.

    id: unique in the benchmark; names the item in replies and tables.
    kind: its task type, as the benchmark calls it.
    path: of its result in the official layout, below the benchmark's folder and without suffix.
    sources: loaders of its input pictures, in order. Editors get the only one.
    references: loaders of pictures that judges are shown besides.
    unsupported: why it can't be made with one input picture; empty when it can.
    facts: the benchmark's own record.
    """

    id: str
    kind: str
    instruction: str
    path: str
    sources: Sequence[Loader]
    references: Sequence[Loader] = ()
    unsupported: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def source(self) -> RGB:
        """The picture to edit.

        Raises:
            DataError: it can't be read.
        """
        return self.sources[0]()

    @cached_property
    def source_key(self) -> str:
        """Names the pictures to edit by their content. They are read for it, once.

        Raises:
            DataError: one can't be read.
        """
        return _key(self.sources)

    @cached_property
    def reference_key(self) -> str:
        """As `source_key`, of the references."""
        return _key(self.references)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ask:
    """One question about one result.

    metric: names it in stored replies.
    text: the question; its answer is read by `read`.
    pictures: what is shown, in order, given the result.
    schema: JSON schema of the reply, where it is JSON.
    """

    metric: str
    text: str
    read: Read
    pictures: Callable[[RGB], Sequence[RGB]]
    system: str = ""
    schema: Mapping[str, Any] | None = None


Part = Callable[[Item, Marks], tuple[float, float]]
"""What an item adds to a column: (sum of values, their number)."""

Keep = Callable[[Item], bool]
"""Which items belong to a column or table."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Column:
    """One figure: the mean, over strata, of the sum of values divided by their number.

    One stratum (the default) gives a plain or pooled mean, one per kind a macro mean.
    keep: which of the table's items have a part in it.
    mark: the one mark that it is a mean of, which then counts wherever it was read; if empty, an item
        counts with all its marks or not at all.
    headline: what the benchmark is quoted by; never given without full coverage, so it keeps all items.
    """

    name: str
    part: Part
    keep: Keep = lambda item: True
    mark: str = ""
    stratum: Callable[[Item], str] = lambda item: ""
    headline: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """Columns over the same items.

    key: short name; published rows refer to it.
    keep: which items belong to it.
    """

    key: str
    title: str
    columns: Sequence[Column]
    keep: Keep = lambda item: True
    digits: int = 2


class Benchmark(ABC):
    """A set of items with everything that is particular to it.

    Attributes:
        version: of the questions; raised with every change that may move a mark.
        official_size: number of items of the published set, so that a part of it is never taken for it.
        prefixes: folders in which results may lie in a result folder; ours go to the first.
        by_model: whether a chat model answers the questions (else a judge that grades by itself).
    """

    name: ClassVar[str]
    title: ClassVar[str]
    version: ClassVar[str] = "1"
    official_size: int | None = None
    prefixes: ClassVar[tuple[str, ...]] = ("",)
    by_model: ClassVar[bool] = True
    items: Sequence[Item]

    @abstractmethod
    def asks(self, item: Item) -> Sequence[Ask]:
        """Every question about one result of the item, in a fixed order."""

    @abstractmethod
    def tables(self) -> Sequence[Table]:
        """The tables, the one to quote first."""

    def result(self, folder: Path, item: Item) -> Path:
        """Where our result of an item goes."""
        return folder / self.prefixes[0] / f"{item.path}.png"

    def extras(self, folder: Path, item: Item, edited: RGB) -> Mapping[Path, bytes]:
        """What the official scorer reads beside our result, with where it goes; nothing for most."""
        return {}

    def find(self, folder: Path, item: Item) -> Path | None:
        """Where a result of an item lies in anybody's folder of the official layout; None if nowhere."""
        for prefix in self.prefixes:
            for suffix in SUFFIXES:
                path = folder / prefix / f"{item.path}{suffix}"
                if path.is_file():
                    return path
        return None

    def score(self, item: Item, marks: Marks) -> float | None:
        """What the item itself scores in the first headline it has a part in; to sort by."""
        for table in self.tables():
            for column in table.columns:
                if column.headline and table.keep(item) and column.keep(item):
                    total, number = column.part(item, marks)
                    return total / number
        return None


def _key(pictures: Sequence[Loader]) -> str:
    return " ".join(image_key(load()) for load in pictures)


def mean_of(mark: str) -> Part:
    """Each item adds one mark."""
    return lambda item, marks: (marks[mark], 1.0)


def of_kind(kind: str) -> Keep:
    """Items of one kind."""
    return lambda item: item.kind == kind
