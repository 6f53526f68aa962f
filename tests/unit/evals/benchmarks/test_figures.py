import math

import pytest
from benchmark_judge import FIXTURES

from thinkedit.evals.benchmarks.figures import Status, gain, grade, tabulate
from thinkedit.evals.benchmarks.imgedit import CRITERIA, ImgEdit
from thinkedit.evals.benchmarks.store import Row
from thinkedit.evals.stats import mean_interval, strata_interval

BENCHMARK = ImgEdit(FIXTURES / "imgedit")


def reply(item: str, *numbers: int) -> str:
    kind = next(found.kind for found in BENCHMARK.items if found.id == item)
    return "\n".join(f"{name}: {number}" for name, number in zip(CRITERIA[kind], numbers, strict=True))


def row(item: str, text: str | None, failure: str = "", turn: str = "final") -> Row:
    return Row(arm="a", item=item, turn=turn, metric="criteria", reply=text, failure=failure)


def test_every_item_is_counted_once_by_how_far_it_came() -> None:
    rows = [
        row("11", reply("11", 5, 4, 4)),
        row("12", "Prompt Compliance: four"),
        row("13", None, "refused: a content filter"),
        row("14", None, "unanswered: no connection"),
    ]
    grades = grade(BENCHMARK, rows)["final"]
    assert {item: found.status for item, found in grades.items()} == {
        "11": Status.JUDGED,
        "12": Status.PARSE_FAILED,
        "13": Status.REFUSED,
        "14": Status.UNANSWERED,
        "15": Status.MISSING,
    }
    [table] = tabulate(BENCHMARK, grades, resamples=100, seed=0)
    coverage = table.coverage
    assert (coverage.n_expected, coverage.n_generated, coverage.n_judged) == (5, 4, 1)
    assert (coverage.n_parse_failed, coverage.n_refused, coverage.n_unanswered) == (1, 1, 1)
    headline = table.headline()
    assert headline is not None
    assert headline.withheld
    assert headline.interval is not None
    assert headline.interval.n == 1  # a refusal is no 0: it is in no mean


def test_full_coverage_gives_the_headline() -> None:
    rows = [row(item.id, reply(item.id, 4, 4, 4)) for item in BENCHMARK.items]
    [table] = tabulate(BENCHMARK, grade(BENCHMARK, rows)["final"], resamples=100, seed=0)
    headline = table.headline()
    assert headline is not None
    assert not headline.withheld
    assert headline.interval is not None
    assert (headline.interval.mean, headline.interval.n) == (4.0, 5)


def test_gains_are_of_the_same_items_on_both_sides() -> None:
    before = grade(BENCHMARK, [row("11", reply("11", 1, 1, 1)), row("12", reply("12", 2, 2, 2))])["final"]
    after = grade(BENCHMARK, [row("11", reply("11", 4, 4, 4)), row("13", reply("13", 5, 5, 5))])["final"]
    table = BENCHMARK.tables()[0]
    column = next(column for column in table.columns if column.headline)
    grown = gain(BENCHMARK, column, table, before, after, resamples=100, seed=0)
    assert grown is not None
    assert (grown.mean, grown.n) == (3.0, 1)
    assert gain(BENCHMARK, column, table, before, {}, resamples=100, seed=0) is None


def test_one_stratum_of_single_values_is_a_plain_mean() -> None:
    values = [1.0, 2.0, 4.0, 9.0, 5.0, 3.0]
    plain, found = mean_interval(values, seed=3), strata_interval([[(v, 1.0) for v in values]], seed=3)
    assert found.mean == plain.mean
    assert found.n == plain.n
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=0.35)


def test_strata_count_alike_however_many_items_they_have() -> None:
    found = strata_interval([[(0.0, 1.0)] * 9, [(1.0, 1.0)]])
    assert found.mean == 0.5
    assert (found.low, found.high) == (0.5, 0.5)  # nothing varies within either


def test_values_of_one_item_are_drawn_together() -> None:
    pooled = strata_interval([[(8.0, 4.0), (0.0, 1.0)]])
    assert pooled.mean == 8 / 5
    assert (pooled.low, pooled.high) == (0.0, 2.0)


def test_an_interval_of_one_item_has_no_ends() -> None:
    found = strata_interval([[(2.0, 1.0)], [(4.0, 1.0)]])
    assert found.mean == 3.0
    assert math.isnan(found.low)
    assert math.isnan(found.high)


@pytest.mark.parametrize("strata", [[], [[]], [[(math.nan, 1.0)]]])
def test_no_interval_of_nothing(strata: list[list[tuple[float, float]]]) -> None:
    with pytest.raises(ValueError, match="a mean over"):
        strata_interval(strata)
