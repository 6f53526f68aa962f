"""Files that the official scripts leave, as replies: our figures of them, worked out by hand.

The shapes are those of the scripts; `docs/benchmarks.md` says what a line of a replies file needs.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from benchmark_judge import FIXTURES
from graded import values

from thinkedit.errors import DataError
from thinkedit.evals.benchmarks.base import Benchmark
from thinkedit.evals.benchmarks.figures import TableFigures
from thinkedit.evals.benchmarks.gedit import GEdit
from thinkedit.evals.benchmarks.imgedit import ImgEdit
from thinkedit.evals.benchmarks.krisbench import KRISBench
from thinkedit.evals.benchmarks.run import replay


def table(benchmark: Benchmark, lines: Iterable[dict[str, Any]], key: str, folder: Path) -> TableFigures:
    file = folder / "replies.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    results, _ = replay(benchmark, file, [], folder, resamples=9, seed=0)
    return results.arms[0].table(key)


# {model}_combined_gpt_score.csv of GEdit-Bench
GEDIT = """\
source_image,edited_image,instruction,sementics_score,quality_score,intersection_exist,instruction_language
r/fullset/subject-add/en/subject-add-1_SRCIMG.png,r/fullset/subject-add/en/subject-add-1.png,x,9.0,4.0,True,en
r/fullset/color_alter/en/color_alter-1_SRCIMG.png,r/fullset/color_alter/en/color_alter-1.png,y,1.0,9.0,False,en
"""


def gedit_lines(text: str) -> Iterable[dict[str, Any]]:
    for row in csv.DictReader(io.StringIO(text)):
        item = f"{row['instruction_language']}/{Path(row['edited_image']).stem}"
        for metric, name in (("SC", "sementics_score"), ("PQ", "quality_score")):
            mark = float(row[name])
            yield {"item": item, "metric": metric, "reply": json.dumps({"score": [mark, mark]})}


def test_gedits_csv_file_gives_the_macro_mean_of_roots(tmp_path: Path) -> None:
    """Roots of 9 * 4 and 1 * 9: (6 + 3) / 2; of the intersection the first alone."""
    benchmark = GEdit(FIXTURES / "gedit")
    full = table(benchmark, gedit_lines(GEDIT), "gedit-en-full", tmp_path)
    assert full.coverage.complete
    assert values(full) == pytest.approx(
        {"G_SC": 5.0, "G_PQ": 6.5, "G_O": 4.5, "subject-add": 6.0, "color_alter": 3.0}
    )
    both = table(benchmark, gedit_lines(GEDIT), "gedit-en-intersection", tmp_path)
    assert values(both)["G_O"] == 6.0
    assert both.coverage.n_expected == 1


def test_a_row_that_a_rerun_appended_once_more_is_refused(tmp_path: Path) -> None:
    twice = GEDIT + GEDIT.splitlines()[1] + "\n"
    with pytest.raises(DataError, match=r"line 5: replay / en/subject-add-1 / final / SC is there twice"):
        table(GEdit(FIXTURES / "gedit"), gedit_lines(twice), "gedit-en-full", tmp_path)


# result.json of ImgEdit-Bench: raw replies by key; 15 was never answered
IMGEDIT = {
    "11": "Brief reasoning: The star is there.\nPrompt Compliance: 5\nVisual Naturalness: 4\n"
    "Physical & Detail Coherence: 4",
    "12": "Brief reasoning: 1 of 2 is green.\n**Prompt Compliance: 3**\n**Visual Seamlessness: 3/5**\n"
    "**Physical & Detail Fidelity: 3**",
    "13": "Brief reasoning: Gone.\nPrompt Compliance: 5\nVisual Naturalness: 5\n"
    "Physical & Detail Integrity: 5.",
    "14": "Brief reasoning: Half.\nPrompt Compliance: 2\nVisual Naturalness: 2\n"
    "Physical & Detail Integrity: 1",
}


def test_imgedits_json_file_gives_the_mean_over_items(tmp_path: Path) -> None:
    """The official script reads one mark of 12 and two of 13; here all three count."""
    lines = [{"item": key, "metric": "criteria", "reply": reply} for key, reply in IMGEDIT.items()]
    found = table(ImgEdit(FIXTURES / "imgedit"), lines, "imgedit", tmp_path)
    shown = values(found)
    assert (shown["Add"], shown["Adjust"], shown["Remove"], shown["Replace"]) == (4.33, 3.0, 5.0, 1.67)
    assert shown["Overall"] == pytest.approx((4.33 + 3 + 5 + 1.67) / 4)
    assert (found.coverage.n_expected, found.coverage.n_generated, found.coverage.n_judged) == (5, 4, 4)


def kris(**scores: int | None) -> dict[str, Any]:
    """An item of a metrics.json."""
    record: dict[str, Any] = {"instruction": "x", "explain": ""}
    for name, score in scores.items():
        record |= {f"{name}_score": score, f"{name}_reasoning": "fine" if score else None}
    return record


# metrics.json of KRIS-Bench, by category
KRIS = {
    "color_change": {"1": kris(consistency=5, instruction=3, quality=1)},  # 100, 50, 0
    "biology": {"1": kris(consistency=5, instruction=2, knowledge=1, quality=5)},  # 100, 25, 0, 100
    "anomaly_correction": {"1": kris(consistency=5, instruction=None, quality=5)},  # unreadable
}


def test_krisbenchs_json_files_give_pooled_means(tmp_path: Path) -> None:
    metrics = {"VC": ["consistency_score"], "VQ": ["quality_score"], "IF": ["instruction_score"]}
    dual = {**metrics, "IF+KP": ["instruction_score", "knowledge_score"]}
    del dual["IF"]
    lines = [
        {
            "item": f"{category}/{key}",
            "metric": metric,
            "reply": json.dumps({name: record[name] for name in names}),
        }
        for category, items in KRIS.items()
        for key, record in items.items()
        for metric, names in (dual if "knowledge_score" in record else metrics).items()
    ]
    benchmark = KRISBench(FIXTURES / "krisbench")
    found = table(benchmark, lines, "krisbench", tmp_path)
    assert values(found) == pytest.approx(
        {
            "Attribute": 150 / 3,
            "Factual": 150 / 3,
            "Natural": 225 / 4,
            "Conceptual": 225 / 4,
            "Overall": 375 / 7,  # of what was judged
        }
    )
    assert (found.coverage.n_judged, found.coverage.n_parse_failed) == (2, 1)
    by_metric = values(table(benchmark, lines, "krisbench-metrics", tmp_path))
    assert by_metric == pytest.approx({"VC": 100, "VQ": 200 / 3, "IF": 37.5, "KP": 0})
