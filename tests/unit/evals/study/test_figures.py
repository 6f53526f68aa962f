"""Counting over seeds: filled forward, failures left out and told, the paper's order against ours."""

import pytest

from thinkedit.errors import DataError
from thinkedit.evals.study.figures import answers, comparisons
from thinkedit.evals.study.page import About, build_markdown, build_page
from thinkedit.evals.study.plan import CELLS, QUESTIONS
from thinkedit.evals.study.play import Played

FAILED = Played(task="z", task_type="add", stop="failed", detail="HTTP 500")


def played(task: str, *scores: float, predicted: float | None = None, stop: str = "turn_limit") -> Played:
    """Equal semantic and quality scores, so that O is that number."""
    return Played(
        task=task,
        task_type="add",
        stop=stop,
        judged=tuple((score, score) for score in scores),
        predicted=None if predicted is None else (predicted, predicted),
    )


def one_seed(shift: float = 0.0) -> dict[str, list[Played]]:
    return {
        "base": [played("a", 2.0 + shift), played("b", 4.0)],
        "sft": [played("a", 2.0 + shift, 6.0, 8.0, predicted=3.0), played("b", 4.0, stop="accepted"), FAILED],
        "rl": [played("a", 2.0 + shift, 10.0), played("b", 4.0, 9.0, 10.0, stop="accepted")],
    }


def test_the_plan_is_whole() -> None:
    names = [cell.name for cell in CELLS]
    assert len(set(names)) == len(names)
    asked = {row.cell for question in QUESTIONS for row in question.rows}
    assert asked == set(names)


def test_early_stops_are_filled_forward_and_failures_left_out_and_told() -> None:
    [stages] = [a for a in answers([one_seed(), one_seed(2.0)]) if a.question.key == "stages"]
    alone, base, sft, rl = stages.lines
    assert alone.by_seed == [3.0, 4.0]  # the first edits: (2 + 4) / 2, (4 + 4) / 2
    assert base.by_seed == alone.by_seed
    assert sft.by_seed == [6.0, 6.0]  # 8 and, stopped early, 4
    assert rl.by_seed == [10.0, 10.0]
    assert (sft.overall.mean, sft.overall.n, sft.failed, sft.kept) == (6.0, 4, 2, 0.5)
    assert sft.overall.low < 6.0 < sft.overall.high
    assert sft.critic == pytest.approx(1.0)  # predicted 3 where 2 and 4 were judged
    assert rl.critic is None


def test_a_table_row_can_stop_after_fewer_edits() -> None:
    [turns] = [a for a in answers([one_seed()]) if a.question.key == "turns"]
    by_label = {line.row.label: line.overall.mean for line in turns.lines}
    assert by_label["SFT, 1 edit"] == 3.0
    assert by_label["SFT, 2 edits"] == 5.0
    assert by_label["SFT, 8 edits"] == 6.0
    kept = {line.row.label: line.kept for line in turns.lines}
    # SFT kept a first edit at its first critique, RL a third one at its third.
    assert (kept["SFT, 1 edit"], kept["SFT, 2 edits"]) == (0.0, 0.5)
    assert (kept["SFT and RL, 2 edits"], kept["SFT and RL, 4 edits"]) == (0.0, 0.5)
    assert next(line.critic for line in turns.lines if line.row.label == "SFT, 1 edit") is None


def test_the_papers_order_is_compared_and_overlap_decides_nothing() -> None:
    seed = {
        "sft": [played(str(i), 1.0, 1.0, 5.0 + i % 2) for i in range(40)],
        "base": [played(str(i), 1.0 + i % 2) for i in range(40)],
        "rl": [played(str(i), 1.0, 1.0, 1.0 + i % 2) for i in range(40)],
    }
    [stages] = [a for a in answers([seed]) if a.question.key == "stages"]
    verdicts = {(c.below, c.above): c.verdict for c in comparisons(stages)}
    assert verdicts == {
        ("the editor alone", "base thinker"): "agrees",
        ("base thinker", "SFT"): "agrees",
        ("SFT", "SFT and RL"): "differs",
    }
    seed["base"] = [played(str(i), 1.0 + 9 * (i % 2)) for i in range(40)]
    [stages] = [a for a in answers([seed]) if a.question.key == "stages"]
    assert comparisons(stages)[1].verdict == "undecided"


def test_each_thinkers_list_of_edits_begins_anew() -> None:
    scores = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    seed = {name: [played("a", *scores), played("b", *scores)] for name in ("sft", "rl", "aware_expert")}
    [turns] = [a for a in answers([seed]) if a.question.key == "turns"]
    assert all(c.paper > 0 for c in comparisons(turns))
    assert len(comparisons(turns)) == 8


def test_seeds_must_have_played_the_same() -> None:
    with pytest.raises(DataError, match="finish them first"):
        answers([one_seed(), {}])


def test_both_pages_hold_every_question_that_was_played(tmp_path: object) -> None:
    from pathlib import Path

    counted = answers([one_seed()])
    about = About(seeds=[0], tasks=3, quick=True)
    page = Path(str(tmp_path)) / "study.html"
    build_page(counted, about, page)
    text, html = build_markdown(counted, about), page.read_text()
    for answer in counted:
        shown = bool(answer.lines)
        assert (answer.question.title in text) == shown
        assert (f'id="{answer.question.key}"' in html) == shown
    assert "mean nothing" in text
    assert "mean nothing" in html
    assert "6.23" in text, "the published figure beside ours"
