import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from benchmark_judge import FIXTURES
from graded import figures, values

from thinkedit.errors import DataError
from thinkedit.evals.benchmarks.base import Item
from thinkedit.evals.benchmarks.figures import grade, tabulate
from thinkedit.evals.benchmarks.risebench import RISEBench, consistency_free, item_score
from thinkedit.evals.benchmarks.store import Row
from thinkedit.types import RGB

C, R, V = "ApprConsistency", "Reasoning", "VisualPlausibility"


@pytest.fixture(scope="module")
def benchmark() -> RISEBench:
    return RISEBench(FIXTURES / "risebench")


@pytest.fixture(scope="module")
def items(benchmark: RISEBench) -> dict[str, Item]:
    return {item.id: item for item in benchmark.items}


def test_results_lie_where_either_script_looks(
    benchmark: RISEBench, items: dict[str, Item], tmp_path: Path
) -> None:
    item = items["temporal_1"]
    assert benchmark.result(tmp_path, item) == tmp_path / "images/temporal_reasoning/temporal_1.png"
    other = tmp_path / "temporal_reasoning" / "temporal_1.jpeg"
    other.parent.mkdir()
    other.touch()
    assert benchmark.find(tmp_path, item) == other


def test_an_empty_flag_is_no_flag(items: dict[str, Item]) -> None:
    """pandas gives every item of a file NaN where one item has the flag; NaN is true in Python."""
    assert {key for key, item in items.items() if consistency_free(item.facts)} == {"causal_2"}
    assert not consistency_free({"consistency_free": False})


def test_which_axes_are_judged(benchmark: RISEBench, items: dict[str, Item]) -> None:
    asked = {key: [ask.metric for ask in benchmark.asks(item)] for key, item in items.items()}
    assert asked == {
        "temporal_1": [C, R, V],
        "causal_2": [R, V],
        "spatial_3": [C, R, V],
        "spatial_4": [C, R, V],
        "logical_5": [C, R],
        "logical_6": [C, R],
    }


def test_which_pictures_are_shown(benchmark: RISEBench, items: dict[str, Item]) -> None:
    edited = items["temporal_1"].source()

    def shown(key: str, metric: str) -> list[str]:
        item = items[key]
        known: dict[str, RGB] = {"source": item.source()}
        if item.references:
            known["reference"] = item.references[0]()
        ask = next(ask for ask in benchmark.asks(item) if ask.metric == metric)
        return [
            "result" if picture is edited else next(n for n, p in known.items() if (p == picture).all())
            for picture in ask.pictures(edited)
        ]

    assert shown("causal_2", R) == ["result"]
    assert shown("spatial_3", R) == ["reference", "result"]
    assert shown("spatial_3", C) == ["source", "result"]  # the official script shows the reference
    assert shown("spatial_4", R) == ["source", "result"]
    assert shown("logical_5", R) == ["reference", "result"]
    assert shown("logical_6", R) == ["result"]
    assert shown("spatial_4", V) == ["result"]


@pytest.mark.parametrize(
    ("key", "marks", "score"),
    [
        ("temporal_1", {C: 4, R: 3, V: 5}, 0.3 * 4 + 0.5 * 3 + 0.2 * 5),  # 3.7
        ("temporal_1", {C: 5, R: 1, V: 5}, (1.5 + 0.5 + 1.0) / 2),  # failed reasoning halves: 1.5
        ("temporal_1", {C: 1, R: 1, V: 1}, 1.0),  # but not below 1
        ("causal_2", {R: 4, V: 5}, 0.8 * 4 + 0.2 * 5),  # 4.2
        ("logical_6", {C: 0, R: 1}, 0.3 * 1 + 0.7 * 5),  # 0 and 1 are 1 and 5: 3.8
        ("logical_6", {C: 1, R: 0}, (0.3 * 5 + 0.7 * 1) / 2),  # 1.1
    ],
)
def test_item_scores(items: dict[str, Item], key: str, marks: dict[str, float], score: float) -> None:
    assert item_score(items[key], marks) == pytest.approx(score)


MARKS = {
    "temporal_1": {C: 5, R: 5, V: 5},
    "causal_2": {R: 5, V: 5},
    "spatial_3": {C: 5, R: 5, V: 4},
    "spatial_4": {C: 5, R: 5, V: 5},
    "logical_5": {C: 1, R: 1},
    "logical_6": {C: 1, R: 0},
}


def test_accuracy_counts_items_without_a_consistency_mark_and_legacy_does_not(benchmark: RISEBench) -> None:
    now, then = (values(figures(benchmark, MARKS, key)) for key in ("risebench", "risebench-legacy"))
    assert now == pytest.approx(
        {"Temporal": 100, "Causal": 100, "Spatial": 50, "Logical": 50, "Overall": 400 / 6}
    )
    assert then["Causal"] == 0
    assert then["Overall"] == pytest.approx(300 / 6)


def test_the_overall_is_over_items_not_over_categories(benchmark: RISEBench) -> None:
    found = values(figures(benchmark, MARKS, "risebench"))
    categories = [found[name] for name in ("Temporal", "Causal", "Spatial", "Logical")]
    assert found["Overall"] != pytest.approx(sum(categories) / 4)  # 75


def test_axes_have_their_own_numbers_of_items(benchmark: RISEBench) -> None:
    found = figures(benchmark, MARKS, "risebench-axes")
    assert {f.name: f.interval.n for f in found.figures if f.interval} == {C: 5, R: 6, V: 4}
    assert values(found)[C] == pytest.approx((5 + 5 + 5 + 5 + 5) / 5)
    assert values(found)[V] == pytest.approx((5 + 5 + 4 + 5) / 4)


def test_one_faulty_axis_leaves_the_other_axes_of_the_item(benchmark: RISEBench) -> None:
    """Consistency of temporal_1 can't be read: it is in no accuracy, and in two of the three axes."""
    replies = {C: "Final Score: 1", R: "Final Score: 1", V: "Final Score: 1"}
    rows = [
        Row(
            arm="a",
            item=item.id,
            turn="final",
            metric=ask.metric,
            reply="none" if (item.id, ask.metric) == ("temporal_1", C) else replies[ask.metric],
        )
        for item in benchmark.items
        for ask in benchmark.asks(item)
    ]
    found = tabulate(benchmark, grade(benchmark, rows)["final"], resamples=9, seed=0)
    counts = {
        table.table.key: {figure.name: (figure.n_judged, figure.n_expected) for figure in table.figures}
        for table in found
    }
    assert counts["risebench-axes"] == {C: (4, 5), R: (6, 6), V: (4, 4)}
    assert counts["risebench"]["Temporal"] == (0, 1)
    assert counts["risebench"]["Overall"] == (5, 6)
    assert {table.coverage.n_parse_failed for table in found} == {1}


def test_a_score_in_percent_is_a_mean_over_items(benchmark: RISEBench) -> None:
    """Items score 5, 5, 4.8, 5, 5 and (0.3 * 5 + 0.7 * 1) / 2 = 1.1; 100 % is 5 and 0 % is 1."""
    found = figures(benchmark, MARKS, "risebench-score")
    assert values(found) == pytest.approx(
        {"Temporal": 100, "Causal": 100, "Spatial": 97.5, "Logical": 51.25, "Overall": 497.5 / 6}
    )


def test_a_spatial_item_without_a_reasoning_picture_is_judged_by_words(
    benchmark: RISEBench, items: dict[str, Item]
) -> None:
    """The official script reads the field unguarded there, and fails."""
    facts = {key: value for key, value in items["spatial_4"].facts.items() if key != "reasoning_img"}
    item = replace(items["spatial_4"], facts=facts)
    ask = next(ask for ask in benchmark.asks(item) if ask.metric == R)
    edited = item.source()
    [shown] = ask.pictures(edited)
    assert shown is edited
    assert "One picture follows: the result." in ask.text
    assert '"the circle is gone"' in ask.text


def test_a_file_without_the_full_sets_fields_is_read(tmp_path: Path) -> None:
    """The 64-item file has neither reasoning_img nor consistency_free; the official script then fails."""
    shutil.copytree(FIXTURES / "risebench", tmp_path, dirs_exist_ok=True)
    file = tmp_path / "datav2_total_w_subtask.json"
    kept = ("index", "category", "instruction", "image", "reference", "reference_img", "reference_txt")
    records = [
        {key: value for key, value in record.items() if key in kept and value is not None}
        for record in json.loads(file.read_text())
    ]
    file.write_text(json.dumps(records))
    items = {item.id: item for item in RISEBench(file).items}
    assert [ask.metric for ask in RISEBench(file).asks(items["causal_2"])] == [C, R, V]


def test_faults_in_the_file_are_named(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "risebench", tmp_path, dirs_exist_ok=True)
    file = tmp_path / "datav2_total_w_subtask.json"
    records = json.loads(file.read_text())
    for change, message in (
        ({"reference": None}, "none of reference"),
        ({"index": records[1]["index"]}, "an index is there twice"),
        ({"image": "nowhere.png"}, "there is no picture"),
    ):
        file.write_text(json.dumps([records[0] | change, *records[1:]]))
        with pytest.raises(DataError, match=message):
            RISEBench(tmp_path)
