import json
import shutil
from pathlib import Path

import pytest
from benchmark_judge import FIXTURES
from graded import figures, values

from thinkedit.errors import DataError, UnknownName
from thinkedit.evals.benchmarks.base import Ask, Item
from thinkedit.evals.benchmarks.figures import grade, tabulate
from thinkedit.evals.benchmarks.krisbench import TEMPORAL, KRISBench
from thinkedit.evals.benchmarks.store import Row

DATA = FIXTURES / "krisbench"
GOOD = json.dumps(
    dict.fromkeys(("consistency_score", "quality_score", "instruction_score", "knowledge_score"), 4)
)


@pytest.fixture(scope="module")
def benchmark() -> KRISBench:
    return KRISBench(DATA)


@pytest.fixture(scope="module")
def items(benchmark: KRISBench) -> dict[str, Item]:
    return {item.id: item for item in benchmark.items}


def ask(benchmark: KRISBench, item: Item, metric: str) -> Ask:
    return next(ask for ask in benchmark.asks(item) if ask.metric == metric)


def test_results_lie_by_category(benchmark: KRISBench, items: dict[str, Item], tmp_path: Path) -> None:
    item = items["biology/1"]
    assert benchmark.result(tmp_path, item) == tmp_path / "biology" / "1.png"
    other = tmp_path / "biology" / "1.jpg"  # as the official README has it
    other.parent.mkdir()
    other.touch()
    assert benchmark.find(tmp_path, item) == other


def test_items_with_several_inputs_are_counted_out(benchmark: KRISBench, items: dict[str, Item]) -> None:
    unsupported = {key: item.unsupported for key, item in items.items() if item.unsupported}
    assert unsupported == {
        "multi-element_composition/1": "needs 2 input pictures",
        "temporal_prediction/1": "needs 3 input pictures",
    }
    marks = {"VC": 5.0, "VQ": 5.0, "IF": 5.0}
    four = ("color_change/1", "anomaly_correction/1", "viewpoint_change/1")
    graded = {**dict.fromkeys(four, marks), "biology/1": {**marks, "KP": 5.0}}
    for table, left_out in (("krisbench", 1), ("krisbench-temporal", 2)):
        coverage = figures(benchmark, graded, table).coverage
        assert coverage.complete
        assert (coverage.n_expected, coverage.n_unsupported) == (4, left_out)


def test_the_headline_has_the_coverage_of_what_it_counts(benchmark: KRISBench) -> None:
    """Temporal is in no published Overall, so what is missing there withholds the other one only."""
    without = {key: marks for key, marks in MARKS.items() if not key.startswith("temporal")}
    main, timed = (figures(benchmark, without, key) for key in ("krisbench", "krisbench-temporal"))
    headline, other = main.headline(), timed.headline()
    assert headline is not None
    assert headline.interval is not None
    assert other is not None
    assert (headline.withheld, main.coverage.n_expected, headline.interval.n) == (False, 5, 5)
    rows = [
        Row(
            arm="a",
            item=item.id,
            turn="final",
            metric=ask.metric,
            reply="{}" if item.kind == TEMPORAL else GOOD,
        )
        for item in benchmark.items
        for ask in benchmark.asks(item)
    ]
    tables = {
        t.table.key: t for t in tabulate(benchmark, grade(benchmark, rows)["final"], resamples=9, seed=0)
    }
    assert tables["krisbench"].coverage.complete
    assert tables["krisbench-temporal"].coverage.n_parse_failed == 1
    withheld = {key: found.withheld for key, table in tables.items() if (found := table.headline())}
    assert withheld == {"krisbench": False, "krisbench-temporal": True}


def test_knowledge_is_asked_where_there_is_knowledge(benchmark: KRISBench, items: dict[str, Item]) -> None:
    asked = {key: [ask.metric for ask in benchmark.asks(item)] for key, item in items.items()}
    assert asked["biology/1"] == ["VC", "VQ", "IF+KP"]
    assert all(metrics == ["VC", "VQ", "IF"] for key, metrics in asked.items() if key != "biology/1")
    dual = ask(benchmark, items["biology/1"], "IF+KP")
    assert '"stars live at the top"' in dual.text
    assert dual.read('{"instruction_score": 4, "knowledge_score": 2}') == {"IF": 4, "KP": 2}


def test_the_explanation_of_an_anomaly_is_shown_to_the_judge(
    benchmark: KRISBench, items: dict[str, Item]
) -> None:
    """The official script never picks its prompt for this, for it looks for another spelling."""
    assert '"no circle belongs there"' in ask(benchmark, items["anomaly_correction/1"], "IF").text
    assert "no circle" not in ask(benchmark, items["anomaly_correction/1"], "VC").text


def test_every_picture_stands_in_its_own_slot(benchmark: KRISBench, items: dict[str, Item]) -> None:
    edited = items["color_change/1"].source().copy()

    def shown(key: str, metric: str) -> list[str]:
        item = items[key]
        known = {f"source {k}": load() for k, load in enumerate(item.sources)}
        if item.references:
            known["truth"] = item.references[0]()
        return [
            "result" if picture is edited else next(n for n, p in known.items() if (p == picture).all())
            for picture in ask(benchmark, item, metric).pictures(edited)
        ]

    assert shown("color_change/1", "VC") == ["source 0", "result"]
    assert shown("color_change/1", "VQ") == ["result"]  # never in the place of an original
    assert shown("viewpoint_change/1", "IF") == ["source 0", "result", "truth"]
    # Frames 1, 2 and 4 are given: the result is number 3.
    assert shown("temporal_prediction/1", "IF") == ["source 0", "source 1", "result", "source 2"]
    assert "Number 3 is the result" in ask(benchmark, items["temporal_prediction/1"], "IF").text
    assert shown("multi-element_composition/1", "IF") == ["source 0", "source 1", "result"]


MARKS = {
    "color_change/1": {"VC": 5.0, "VQ": 3.0, "IF": 1.0},  # 100, 50, 0
    "anomaly_correction/1": {"VC": 5.0, "VQ": 5.0, "IF": 5.0},  # 100, 100, 100
    "viewpoint_change/1": {"VC": 2.0, "VQ": 2.0, "IF": 2.0},  # 25, 25, 25
    "biology/1": {"VC": 1.0, "VQ": 1.0, "IF": 1.0, "KP": 5.0},  # 0, 0, 0, 100
    "temporal_prediction/1": {"VC": 5.0, "VQ": 5.0, "IF": 5.0},
    "multi-element_composition/1": {"VC": 3.0, "VQ": 3.0, "IF": 3.0},
}


def test_averages_are_pooled_over_single_marks(benchmark: KRISBench) -> None:
    found = values(figures(benchmark, MARKS, "krisbench"))
    assert found["Attribute"] == pytest.approx(450 / 6)
    assert found["Spatial"] == pytest.approx(25)
    assert found["Factual"] == pytest.approx(525 / 9)  # and not (75 + 25) / 2
    assert found["Conceptual"] == found["Natural"] == pytest.approx(100 / 4)
    assert found["Procedural"] == found["Instruction"] == pytest.approx(50)
    assert found["Overall"] == pytest.approx((450 + 75 + 100 + 150) / (6 + 3 + 4 + 3))
    timed = values(figures(benchmark, MARKS, "krisbench-temporal"))
    assert timed["Temporal"] == 100
    assert timed["Overall with Temporal"] == pytest.approx((450 + 75 + 100 + 150 + 300) / 19)


def test_metrics_have_figures_of_their_own(benchmark: KRISBench) -> None:
    found = figures(benchmark, MARKS, "krisbench-metrics")
    assert values(found)["KP"] == 100
    assert values(found)["VQ"] == pytest.approx((50 + 100 + 25 + 0 + 100 + 50) / 6)
    assert {f.name: f.interval.n for f in found.figures if f.interval} == {"VC": 6, "VQ": 6, "IF": 6, "KP": 1}


def test_faults_in_the_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expects a folder per category"):
        KRISBench(tmp_path)
    shutil.copytree(DATA, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "biology" / "annotation.json"
    record = json.loads(file.read_text())["1"]
    for change, message in (({"ori_img": []}, "ori_img"), ({"gt_img": "no.png"}, "there is no picture")):
        file.write_text(json.dumps({"1": record | change}))
        with pytest.raises(DataError, match=message):
            KRISBench(tmp_path)
    file.write_text(json.dumps({"1": record | {"explain_en": None}}))  # some have none
    assert "nothing is noted" in KRISBench(tmp_path).asks(KRISBench(tmp_path).items[1])[2].text
    (tmp_path / "biology").rename(tmp_path / "biologie")
    with pytest.raises(UnknownName, match="Did you mean 'biology'"):
        KRISBench(tmp_path)
