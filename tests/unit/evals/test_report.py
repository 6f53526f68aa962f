"""The report is one file that needs nothing else, says what happened and escapes what it shows."""

import asyncio
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from episodes import make_run, play
from typer.testing import CliRunner

from thinkedit.actors.rows import changed
from thinkedit.actors.store import TrajectoryStore
from thinkedit.cli import app
from thinkedit.configs.load import load_config
from thinkedit.evals.report import build_report, duration
from thinkedit.evals.report.gallery import KINDS, choose, kind_of, prompt_change
from thinkedit.evals.report.svg import Series, line_chart, number, ticks
from thinkedit.evals.run import RunFolder
from thinkedit.evals.summary import _spending, summarise_run
from thinkedit.rewards.limits.limiter import Limiter
from thinkedit.rewards.limits.meter import Ask, Usage

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Collects what a test asks for, and refuses tags that do not close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.cards: list[dict[str, str | None]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.links += [values[key] or "" for key in ("src", "href") if key in values]
        if "episode" in (values.get("class") or "").split():
            self.cards.append(values)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(run: RunFolder) -> str:
    return build_report(run, summarise_run(run)).read_text()


def test_the_page_needs_no_other_file_and_no_network(page: str) -> None:
    parsed = Page(page)
    assert parsed.links
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in parsed.links)
    shown = re.sub(r"<pre>.*?</pre>", "", page, flags=re.DOTALL)  # the configuration, which may name servers
    assert not re.search(r"@import|url\(|fetch\(|https?://(?!www\.w3\.org/)", shown)


def test_the_page_has_every_arm_with_its_figure(page: str, run: RunFolder) -> None:
    for figures in summarise_run(run)["arms"].values():
        assert figures["label"] in page
        assert f"<b>{figures['overall']['mean']:.2f}</b>" in page


def test_every_card_has_a_kind_and_an_arm_that_a_filter_offers(page: str) -> None:
    cards = Page(page).cards
    assert {card["data-arm"] for card in cards} >= {"sft", "grpo"}
    for card in cards:
        assert f'data-by="kind" data-value="{card["data-kind"]}"' in page
        assert f'data-by="arm" data-value="{card["data-arm"]}"' in page


def test_what_a_model_writes_cannot_become_markup(run: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(run.root, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    shutil.rmtree(folder.arm("grpo"))
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    with TrajectoryStore(folder.arm("grpo")) as store:
        for episode in run.arms()["grpo"].read():
            turns = []
            for turn in episode.turns:
                critique = turn.critique
                assert critique is not None
                new = type(critique)(evil, critique.scores, evil)
                turns.append(changed(turn, critique=new, prompt=evil, reply=evil, detail=evil))
            task = changed(episode.task, instruction=evil)
            store.append(changed(episode, task=task, turns=turns))
    text = build_report(folder, summarise_run(folder)).read_text()
    assert "alert(1)" in text
    assert "<script>alert" not in text
    assert "<img src=x" not in text


def test_a_run_without_training_and_failing_everywhere_still_has_a_report(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", tasks=4, steps=0)
    shutil.rmtree(folder.evaluation)
    with TrajectoryStore(folder.arm("sft")) as store:
        for episode in play(4, split="test", failing=1.0):
            store.append(episode)
    folder.phases.unlink()
    summary = summarise_run(folder)
    assert summary["arms"]["sft"]["overall"] is None
    text = build_report(folder, summary).read_text()
    Page(text)
    assert "nothing could be graded" in text


def test_what_a_run_spent_is_in_summary_and_report(run: RunFolder, tmp_path: Path) -> None:
    assert summarise_run(run)["spending"] is None
    shutil.copytree(run.root, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    judge = ["judge=viescore", "judge.options.api_key_env=null"]
    limits = ["limits.budget=20", "limits.judge.per_image=0.5"]
    config = load_config("demo", [*judge, *limits])
    limiter = Limiter(config.limits, folder.ledger)
    for _ in range(3):
        permit = asyncio.run(limiter.reserve(Ask("judge", "grader <1>", Usage(images=2)), 1.0))
        limiter.settle(permit, Usage(prompt_tokens=1200, completion_tokens=30, images=2), failed=False)
    limiter.flush()
    spending = _spending(folder, config.limits)
    assert spending is not None
    assert (spending["budget"], spending["total"]["spend"], spending["total"]["calls"]) == (20, 3, 3)
    assert [(row["model"], row["prompt_tokens"]) for row in spending["by_model"]] == [("grader <1>", 3600)]
    text = build_report(folder, summarise_run(folder) | {"spending": spending}).read_text()
    Page(text)
    assert "3 metered calls (0 failed, 0 refused), 3,690 tokens, 6 images, 3.00 of 20.00 spent" in text
    assert "grader &lt;1&gt;" in text


def test_the_command_writes_summary_and_report(run: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(run.root, tmp_path / "run")
    result = CliRunner().invoke(app, ["report", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["schema"] == 2
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000


def test_episodes_are_chosen_by_kind_and_shown_for_every_arm() -> None:
    arms = {
        "grpo": play(40, split="test", garbled=0.2, failing=0.1),
        "sft": play(40, split="test", garbled=0.1),
    }
    chosen = choose(arms, 8.0, per_kind=2)
    groups = {episode.group for _, episode in chosen}
    assert sorted(episode.group for arm, episode in chosen if arm == "sft") == sorted(groups)
    assert sorted(episode.group for arm, episode in chosen if arm == "grpo") == sorted(groups)
    shown = {kind_of(episode, 8.0) for _, episode in chosen}
    assert shown == {kind_of(e, 8.0) for episodes in arms.values() for e in episodes}
    assert shown <= set(KINDS)


def test_prompt_changes_are_marked_word_by_word() -> None:
    change = prompt_change("paint the star blue", "paint the red star blue, <b>")
    assert change == "paint the <ins>red</ins> star <del>blue</del> <ins>blue, &lt;b&gt;</ins>"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (3, "3"),
        (0.0, "0.00"),
        (8.596, "8.60"),
        (3.4e-6, "3.4e-6"),
        (83.51, "83.5"),
    ],
)
def test_numbers_read_well(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(("low", "high"), [(0, 10), (0.83, 0.84), (-3, 2), (5, 5), (0, 0), (1e-9, 3e-9)])
def test_ticks_cover_the_data(low: float, high: float) -> None:
    found = ticks(low, high)
    assert found[0] <= low
    assert found[-1] >= high
    assert 2 <= len(found) <= 8


def test_a_chart_leaves_out_what_is_no_number() -> None:
    chart = line_chart([Series("gap", [1, 2, 3, 4], [1e-6, float("nan"), None, 1e-5])], log=True)
    assert "nan" not in chart.lower()
    assert "not recorded" in line_chart([Series("gap", [1], [None])])


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.25, "0.2 s"), (59.4, "59 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")]
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text
