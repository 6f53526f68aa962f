"""What readers of the tables are told: figures, the items behind them, who judged, what was published."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from benchmark_judge import FIXTURES

from thinkedit.evals.benchmarks.arms import FINAL
from thinkedit.evals.benchmarks.base import Benchmark
from thinkedit.evals.benchmarks.imgedit import CRITERIA, ImgEdit
from thinkedit.evals.benchmarks.krisbench import KRISBench
from thinkedit.evals.benchmarks.page import build_page
from thinkedit.evals.benchmarks.results import ArmResults, Results, count, notes_on
from thinkedit.evals.benchmarks.store import Row
from thinkedit.evals.benchmarks.tables import figures_csv, items_csv, latex, markdown

IMGEDIT, KRIS = ImgEdit(FIXTURES / "imgedit"), KRISBench(FIXTURES / "krisbench")
MARKS = '{"consistency_score": 3, "quality_score": 3, "instruction_score": 3, "knowledge_score": 3}'  # 50


def counted(benchmark: Benchmark, rows: list[Row], turns: list[str], **options: Any) -> ArmResults:
    given: dict[str, Any] = {"about": {}, "stops": {}, "failures": {}, **options}
    return count(benchmark, "ours", rows, turns, **given, resamples=50, seed=0)


def results_of(benchmark: Benchmark, arm: ArmResults) -> Results:
    notes = notes_on(benchmark, [arm])
    models = ["gpt-x-2026-01-01"]
    return Results(
        benchmark=benchmark, judge="gpt-x", judge_id="gpt-x-1", arms=[arm], notes=notes, models=models
    )


def kris() -> Results:
    """Four items judged, the multi-image ones not supported."""
    rows = []
    for item in KRIS.items:
        for ask in KRIS.asks(item):
            row = Row(arm="ours", item=item.id, turn=FINAL, metric=ask.metric, reply=MARKS)
            rows.append(row)
            if item.unsupported:
                rows[-1] = Row(**{**_fields(row), "reply": None, "failure": "unsupported: 2 pictures"})
    return results_of(KRIS, counted(KRIS, rows, [FINAL]))


def _fields(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in ("arm", "item", "turn", "metric")}


def imgedit(marks: Mapping[str, tuple[int, int]], **options: Any) -> Results:
    """Marks at turn 1 and from turn 2 on."""
    rows = [
        Row(
            arm="ours",
            item=item.id,
            turn=turn,
            metric="criteria",
            reply="\n".join(f"{name}: {marks[item.id][turn != '1']}" for name in CRITERIA[item.kind]),
        )
        for item in IMGEDIT.items
        if item.id in marks
        for turn in ("1", "2", FINAL)
    ]
    return results_of(IMGEDIT, counted(IMGEDIT, rows, ["1", "2", FINAL], **options))


def test_markdown_has_the_items_behind_every_figure() -> None:
    text = markdown(kris())
    table = text.split("## KRIS-Bench, 0 to 100\n\n")[1].split("\n\n")[0]
    header, _, figures, counts = table.splitlines()[:4]
    assert header == (
        "|  | source | Attribute | Spatial | Factual | Social | Natural | Conceptual | Logical | Instruction "
        "| Procedural | Overall | n expected / generated / judged / parse failed / unsupported |"
    )
    assert figures == (
        "| ours | measured | 50.00 | 50.00 | 50.00 |  | 50.00 | 50.00 |  |  |  | 50.00 [50.00, 50.00] "
        "| 4 / 4 / 4 / 0 / 1 |"
    )
    assert counts == (
        "| ours | n judged/expected | 2/2 | 1/1 | 3/3 | 0/0 | 1/1 | 1/1 | 0/0 | 0/0 | 0/0 | 4/4 |  |"
    )


def test_latex_has_them_too_with_the_notes_and_the_model_that_answered() -> None:
    text = latex(kris())
    assert r"  ours & 50.00 & 50.00 & 50.00 &" in text
    assert r"4/4 (+1 unsupported) \\" in text
    assert r"  ours ($n$) & 2/2 & 1/1 & 3/3 & 0/0 & 1/1 & 1/1 & 0/0 & 0/0 & 0/0 & 4/4 &  \\" in text
    assert "Judge: gpt-x, answered by gpt-x-2026-01-01. These are 6 items;" in text
    assert "ours: 2 items need several input pictures" in text
    assert text.count(r"\begin{table}") == text.count(r"{\footnotesize Judge:") == 3


def test_the_page_has_them_too(tmp_path: Path) -> None:
    html = build_page(kris(), [], tmp_path).read_text()
    assert "<b>gpt-x, answered by gpt-x-2026-01-01</b>" in html
    assert "n expected / generated / judged / parse failed / unsupported" in html
    assert "<td>4 / 4 / 4 / 0 / 1</td>" in html
    row = next(line for line in html.splitlines() if "n judged/expected" in line)
    assert re.findall(r"<td>(\d+/\d+)</td>", row) == (
        "2/2 1/1 3/3 0/0 1/1 1/1 0/0 0/0 0/0 4/4".split()  # in the order of the columns
    )


def test_published_rows_are_labelled_wherever_they_stand(tmp_path: Path) -> None:
    label = "FLUX.1-Kontext-dev + EditThinker-8B"
    results = kris()
    assert f"| {label} | published | 77.82 |" in markdown(results)
    assert f"  {label} (published) & 77.82 &" in latex(results)
    html = build_page(results, [], tmp_path).read_text()
    assert f'<td class="name">{label}</td><td class="source">published</td><td>77.82</td>' in html
    rows = list(csv.DictReader(io.StringIO(figures_csv(results))))
    theirs = [row for row in rows if row["arm"] == label]
    assert {row["source"] for row in theirs} == {"published"}
    assert {row["value"] for row in theirs if row["column"] == "Overall"} == {"69.53"}
    assert {row["n"] for row in theirs} == {""}
    assert {row["source"] for row in rows if row["arm"] == "ours"} == {"measured"}


def test_figures_have_their_own_items_in_the_csv_file() -> None:
    rows = csv.DictReader(io.StringIO(figures_csv(kris())))
    found = {row["column"]: row for row in rows if (row["table"], row["arm"]) == ("krisbench", "ours")}
    assert (found["Attribute"]["n"], found["Attribute"]["of"]) == ("2", "2")
    assert (found["Instruction"]["n"], found["Instruction"]["of"]) == ("0", "0")
    assert {(row["n_expected"], row["n_unsupported"]) for row in found.values()} == {("4", "1")}


def test_items_can_be_sorted_by_gain() -> None:
    results = imgedit({"11": (2, 5), "12": (4, 1), "13": (3, 3)})
    rows = [row for row in csv.DictReader(io.StringIO(items_csv(results))) if row["turn"] == FINAL]
    gains = {row["item"]: row["gain"] for row in rows}
    assert gains == {"11": "3.0000", "12": "-3.0000", "13": "0.0000", "14": "", "15": ""}


@pytest.mark.parametrize(
    ("options", "stops", "note"),
    [
        (
            {"mode": "before+while"},
            {},
            "the first prompt is the thinker's, so turn 1 is not the plain editor",
        ),
        ({"select": "best_judge"}, {}, "results were chosen by a judge, which is an oracle"),
        ({}, {"thinker_unreadable": 3}, "what the thinker said of 3 items could not be read"),
    ],
)
def test_what_makes_a_result_special_is_noted(
    options: dict[str, str], stops: dict[str, int], note: str
) -> None:
    def notes(**told: Any) -> list[str]:
        return list(imgedit({"11": (2, 5)}, **told).notes)

    usual = notes(about={"options": {"mode": "while", "select": "last"}})
    [more] = set(notes(about={"options": options}, stops=stops)) - set(usual)
    assert more.startswith(f"ours: {note}")


def test_unsupported_items_are_noted_once() -> None:
    [note] = [note for note in kris().notes if "several input pictures" in note]
    assert note == (
        "ours: 2 items need several input pictures, which the editor does not take; they are in no figure."
    )
