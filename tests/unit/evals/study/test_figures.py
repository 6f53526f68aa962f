"""Counting over seeds: filled forward, failures left out and told, the paper's order against ours."""

from pathlib import Path

import pytest

from thinkedit.evals.study.figures import answers
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


def with_experts(seed: dict[str, list[Played]]) -> dict[str, list[Played]]:
    return dict.fromkeys(("aware_expert", "naive_expert"), seed["rl"]) | seed


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
    assert (sft.overall.mean, sft.overall.n, sft.failed, sft.kept) == (6.0, 2, 2, 0.5)
    assert sft.by_task["O"] == {"a": 8.0, "b": 4.0}
    assert sft.overall.low < 6.0 < sft.overall.high
    assert sft.critic == pytest.approx(1.0)  # predicted 3 where 2 and 4 were judged
    assert rl.critic is None


def test_an_unreadable_reply_is_counted_and_keeps_the_edit() -> None:
    seed = one_seed() | {"base": [played("a", 2.0, stop="thinker_unreadable"), played("b", 4.0)]}
    [stages] = [a for a in answers([seed]) if a.question.key == "stages"]
    base = stages.lines[1]
    assert (base.overall.mean, base.unreadable, base.failed) == (3.0, 0.5, 0)


def test_seeds_that_play_the_same_tasks_make_the_interval_no_narrower() -> None:
    hard = [played(str(i), 1.0 + i % 9) for i in range(40)]
    seed = {"base": hard, "sft": hard, "rl": hard}
    [one], [three] = ([a for a in answers([seed] * n) if a.question.key == "stages"] for n in (1, 3))
    assert [line.overall for line in one.lines] == [line.overall for line in three.lines]


def test_a_table_row_can_stop_after_fewer_edits() -> None:
    [turns] = [a for a in answers([with_experts(one_seed())]) if a.question.key == "turns"]
    by_label = {line.row.label: line.overall.mean for line in turns.lines}
    assert by_label["SFT, 1 edit"] == 3.0
    assert by_label["SFT, 2 edits"] == 5.0
    assert by_label["SFT, 8 edits"] == 6.0
    kept = {line.row.label: line.kept for line in turns.lines}
    # SFT kept a first edit at its first critique, RL a third one at its third.
    assert (kept["SFT, 1 edit"], kept["SFT, 2 edits"]) == (0.0, 0.5)
    assert (kept["SFT and RL, 2 edits"], kept["SFT and RL, 4 edits"]) == (0.0, 0.5)
    assert next(line.critic for line in turns.lines if line.row.label == "SFT, 1 edit") is None


def test_the_papers_order_is_compared_task_by_task() -> None:
    def verdicts(seed: dict[str, list[Played]]) -> dict[tuple[str, str], str]:
        [stages] = [a for a in answers([seed]) if a.question.key == "stages"]
        return {(c.below, c.above): c.verdict for c in stages.comparisons}

    # Tasks differ by far more than thinkers do; each task against itself tells them apart all the same.
    seed = {
        "sft": [played(str(i), 1.0 + i % 9, 1.0 + i % 9, 1.3 + i % 9) for i in range(40)],
        "base": [played(str(i), 1.1 + i % 9) for i in range(40)],
        "rl": [played(str(i), 1.0 + i % 9, 1.0 + i % 9, 1.2 + i % 9) for i in range(40)],
    }
    assert verdicts(seed) == {
        ("the editor alone", "base thinker"): "agrees",
        ("base thinker", "SFT"): "agrees",
        ("SFT", "SFT and RL"): "differs",
    }
    [stages] = [a for a in answers([seed]) if a.question.key == "stages"]
    assert stages.comparisons[1].ours.mean == pytest.approx(0.2)
    seed["base"] = [played(str(i), 1.0 + i % 9 + 3 * (-1) ** i) for i in range(40)]
    assert verdicts(seed)["base thinker", "SFT"] == "undecided"


def test_each_thinkers_list_of_edits_begins_anew() -> None:
    scores = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    seed = {name: [played("a", *scores), played("b", *scores)] for name in ("sft", "rl", "aware_expert")}
    [turns] = [a for a in answers([seed]) if a.question.key == "turns"]
    assert all(c.paper is not None and c.paper > 0 for c in turns.comparisons)
    assert len(turns.comparisons) == 8


def test_rewards_are_compared_with_what_was_there_before_them_and_with_each_other() -> None:
    """A better critic has a smaller error, so the sign of that figure reads the other way round."""

    def quality(value: float, predicted: float) -> list[Played]:
        return [
            Played(
                task=str(i),
                task_type="add",
                stop="turn_limit",
                judged=((4.0, value + i % 2),),
                predicted=(4.0, predicted + i % 2),
            )
            for i in range(20)
        ]

    seed = {"sft": quality(4, 5), "rl": quality(9, 9), "rl_balanced": quality(4, 5)}
    seed |= {"rl_released": quality(2, 7), "rl_paper": quality(9, 5)}
    [rewards] = [a for a in answers([seed]) if a.question.key == "rewards"]
    compared = rewards.comparisons
    told = {(c.above, c.figure): (c.verdict, c.ours.mean) for c in compared if c.below.startswith("SFT")}
    assert told["calibrated", "quality"] == ("better", 5.0)
    assert told["calibrated", "critic error"] == ("better", -0.5)
    assert told["balanced", "O"] == ("undecided", 0.0)
    assert told["released", "quality"] == ("worse", -2.0)
    assert told["released", "critic error"] == ("worse", 2.0)  # 7 for 2 on one axis of two, from 5 for 4
    assert told["paper", "critic error"] == ("worse", 1.5)
    others = {c.above: c.verdict for c in compared if (c.below, c.figure) == ("released", "quality")}
    assert others == {"calibrated": "better", "balanced": "better", "paper": "better"}


def test_a_question_is_answered_when_every_seed_has_played_all_of_it() -> None:
    assert [a.question.key for a in answers([one_seed(), one_seed()])] == ["stages"]
    assert [a.question.key for a in answers([one_seed(), {"base": []}])] == []
    assert [a.question.key for a in answers([with_experts(one_seed())])] == ["stages", "turns", "experts"]


def test_both_pages_hold_every_question_that_was_played(tmp_path: Path) -> None:
    counted = answers([one_seed()])
    about = About(seeds=[0], quick=True)
    page = tmp_path / "study.html"
    build_page(counted, about, page)
    text, html = build_markdown(counted, about), page.read_text()
    for question in QUESTIONS:
        shown = question.key == "stages"
        assert (question.title in text) == shown
        assert (f'id="{question.key}"' in html) == shown
    for written in (text, html):
        assert "mean nothing" in written
        assert "6.23" in written, "the published figure beside ours"
        assert "nreadable" in written
        assert "O +3.00 (" in written


def test_numbers_of_edits_are_drawn_as_lines(tmp_path: Path) -> None:
    page = tmp_path / "study.html"
    build_page(answers([with_experts(one_seed())]), About(seeds=[0], quick=False), page)
    html = page.read_text()
    assert html.count('<svg class="chart"') == 1, "of the questions that were played only one has several"
    assert 'aria-label="SFT, SFT and RL, expert who knows the editor"' in html
