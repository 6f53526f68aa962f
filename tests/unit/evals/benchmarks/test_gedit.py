from math import sqrt
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from benchmark_judge import FIXTURES
from graded import figures, values

from thinkedit.errors import DataError, UnknownName
from thinkedit.evals.benchmarks.gedit import GEdit

FILE = FIXTURES / "gedit" / "data" / "train-00000-of-00001.parquet"


@pytest.fixture(scope="module")
def benchmark() -> GEdit:
    return GEdit(FIXTURES / "gedit")


def test_both_languages_are_items_of_their_own_under_one_key(benchmark: GEdit, tmp_path: Path) -> None:
    assert [item.id for item in benchmark.items] == [
        "en/subject-add-1",
        "cn/subject-add-1",
        "en/color_alter-1",
        "cn/color_alter-1",
    ]
    assert benchmark.items[1].instruction == "在左上角画一个紫色的星星"
    wanted = tmp_path / "fullset" / "subject-add" / "cn" / "subject-add-1.png"
    assert benchmark.result(tmp_path, benchmark.items[1]) == wanted


def test_one_language_alone_has_its_own_tables_and_its_own_size(benchmark: GEdit, tmp_path: Path) -> None:
    """606 items in each: the published rows are of English alone."""
    half = GEdit(FIXTURES / "gedit", "cn")
    assert [item.id for item in half.items] == ["cn/subject-add-1", "cn/color_alter-1"]
    assert [table.key for table in half.tables()] == ["gedit-cn-full", "gedit-cn-intersection"]
    assert (half.official_size, benchmark.official_size) == (606, 1212)
    table = pq.read_table(FILE)
    english = table.filter([language.as_py() == "en" for language in table["instruction_language"]])
    pq.write_table(english, tmp_path / "a.parquet")
    assert GEdit(tmp_path).official_size == 606
    assert [table.key for table in GEdit(tmp_path).tables()] == ["gedit-en-full", "gedit-en-intersection"]
    with pytest.raises(DataError, match="no items in language 'cn'"):
        GEdit(tmp_path, "cn")
    with pytest.raises(UnknownName, match="Did you mean 'cn'"):
        GEdit(tmp_path, "zhcn")


def test_sources_come_from_the_parquet_file(benchmark: GEdit) -> None:
    shown = [item.source() for item in benchmark.items]
    assert (shown[0] == shown[1]).all()
    assert (shown[2] == shown[3]).all()
    assert not (shown[0] == shown[2]).all()


def test_the_headline_is_a_macro_mean_of_each_items_own_root(benchmark: GEdit) -> None:
    marks = {"en/subject-add-1": {"SC": 9.0, "PQ": 4.0}, "en/color_alter-1": {"SC": 1.0, "PQ": 9.0}}
    found = figures(benchmark, marks, "gedit-en-full")
    assert found.coverage.complete
    assert values(found) | {} == pytest.approx(
        {
            "G_SC": 5.0,
            "G_PQ": 6.5,
            "G_O": (6.0 + 3.0) / 2,  # and not sqrt(5 * 6.5) = 5.70
            "subject-add": 6.0,
            "color_alter": 3.0,
        }
    )
    assert values(found)["G_O"] != pytest.approx(sqrt(5.0 * 6.5))


def test_languages_and_the_intersection_are_tables_of_their_own(benchmark: GEdit) -> None:
    marks = {"en/subject-add-1": {"SC": 9.0, "PQ": 4.0}}
    full = figures(benchmark, marks, "gedit-en-full")
    both = figures(benchmark, marks, "gedit-en-intersection")
    other = figures(benchmark, marks, "gedit-cn-full")
    assert (full.coverage.n_expected, full.coverage.complete) == (2, False)
    assert (both.coverage.n_expected, both.coverage.complete) == (1, True)
    assert (other.coverage.n_expected, other.coverage.n_judged) == (2, 0)
    assert values(both)["G_O"] == 6.0


def test_a_result_of_another_size_is_scaled_to_the_source(benchmark: GEdit) -> None:
    semantic, quality = benchmark.asks(benchmark.items[0])
    edited = np.zeros((48, 48, 3), np.uint8)
    assert [picture.shape for picture in semantic.pictures(edited)] == [(96, 96, 3), (96, 96, 3)]
    assert [picture.shape for picture in quality.pictures(edited)] == [(96, 96, 3)]


def test_a_mark_is_the_lower_of_two(benchmark: GEdit) -> None:
    semantic, quality = benchmark.asks(benchmark.items[0])
    assert semantic.read('{"reasoning": "", "score": [8, 3]}') == {"SC": 3}
    assert quality.read('{"reasoning": "", "score": [7, 9]}') == {"PQ": 7}
    with pytest.raises(ValueError, match="not two"):
        semantic.read('{"score": [8]}')


def test_faults_in_the_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expects the data set's parquet files"):
        GEdit(tmp_path)
    table = pq.read_table(FILE)
    pq.write_table(table.drop_columns(["Intersection_exist"]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet"):
        GEdit(tmp_path)
    (tmp_path / "a.parquet").unlink()
    for name in ("a", "b"):
        pq.write_table(table, tmp_path / f"{name}.parquet")
    with pytest.raises(DataError, match="'en/subject-add-1' is there twice"):
        GEdit(tmp_path)
