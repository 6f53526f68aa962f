"""Guards around a judge: what they flag, what they cap, and whose verdict it is then."""

import logging
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from plain import HalfJudge, HalfPainter, reply, session, task

from thinkedit import plugins
from thinkedit.envs.editors.cache import CachedJudge
from thinkedit.errors import ConfigError, JudgeError, UnknownName
from thinkedit.rewards.judges.base import Judge
from thinkedit.rewards.judges.guarded import GuardedConfig, GuardedJudge
from thinkedit.testing import JudgeContract
from thinkedit.types import RGB, JudgeIdentity, Scores, Verdict

SOURCE = np.linspace(0, 255, 96 * 128 * 3).reshape(96, 128, 3).astype(np.uint8)
EDITED = 255 - SOURCE


class Flatterer(Judge):
    """Pleased with anything."""

    name = "flatterer"
    inline = True

    def __init__(self) -> None:
        self.scores = Scores(9, 8)

    def judge(self, source: RGB, edited: RGB, instruction: str) -> Verdict:
        return Verdict(scores=self.scores, judge_id="flatterer@1", prompt_hash="p", notes={"said": "fine"})

    def identities(self) -> frozenset[JudgeIdentity]:
        return frozenset({("flatterer@1", "p")})


def guarded(inner: Judge | None = None, **options: Any) -> GuardedJudge:
    return GuardedJudge(GuardedConfig(**options), inner or Flatterer())


def collage() -> RGB:
    half = np.asarray(Image.fromarray(SOURCE).resize((64, 96)))
    return np.hstack([half, 255 - half])


def advert() -> RGB:
    picture = Image.fromarray(EDITED)
    ImageDraw.Draw(picture).text((4, 60), "PERFECT 10/10", font=ImageFont.load_default(14), fill="black")
    return np.array(picture)


TRICKS = {"unchanged": SOURCE, "copied": collage(), "text": advert()}


class TestGuardedJudge(JudgeContract):
    def make(self) -> Judge:
        options = {"judge": {"name": "world"}, "text": "cap"}
        judge: Judge = plugins.build("judges", "guarded", options)
        return judge

    def source(self) -> RGB:
        return self._task().source

    def edited(self) -> RGB:
        return 255 - self._task().source

    def instruction(self) -> str:
        return str(self._task().instruction)

    def _task(self) -> Any:
        return plugins.build("tasks", "world").task("val", 0)


@pytest.mark.parametrize("trick", TRICKS)
@pytest.mark.parametrize(("action", "semantic"), [("off", 9), ("flag", 9), ("cap", 1.5)])
def test_each_guard_is_off_or_tells_or_holds_the_semantic_score_down(
    trick: str, action: str, semantic: float
) -> None:
    others = dict.fromkeys(TRICKS, "off")
    verdict = guarded(**others | {trick: action}, ceiling=1.5).judge(SOURCE, TRICKS[trick], "make it blue")
    assert verdict.scores == Scores(semantic, 8)
    assert verdict.notes["flags"] == ([] if action == "off" else [trick])
    assert verdict.notes["judge"]["semantic"] == 9
    assert verdict.notes["judge"]["notes"] == {"said": "fine"}


def test_by_default_an_unchanged_image_gets_no_semantic_score_whatever_the_judge_says() -> None:
    verdict = guarded().judge(SOURCE, SOURCE, "make it blue")
    assert (verdict.scores, verdict.notes["flags"]) == (Scores(0, 8), ["unchanged"])


def test_an_honest_edit_passes_untouched() -> None:
    verdict = guarded(text="cap").judge(SOURCE, EDITED, "make it blue")
    assert (verdict.scores, verdict.notes["flags"]) == (Scores(9, 8), [])


def test_a_ceiling_never_lifts_a_score() -> None:
    inner = Flatterer()
    inner.scores = Scores(1, 1)
    assert guarded(inner, ceiling=5).judge(SOURCE, SOURCE, "make it blue").scores == Scores(1, 1)


@pytest.mark.parametrize(
    ("trick", "instruction"),
    [
        ("text", 'write "PERFECT" below it'),
        ("text", "add a caption"),
        ("text", "把招牌上的字改成红色"),
        ("copied", "make a before and after collage"),
        ("copied", "tile the picture"),
    ],
)
def test_what_the_user_asked_for_is_no_trick(trick: str, instruction: str) -> None:
    assert guarded(text="cap").judge(SOURCE, TRICKS[trick], instruction).notes["flags"] == []


def test_constant_scores_are_told_from_the_nth_different_edit_on(caplog: pytest.LogCaptureFixture) -> None:
    inner = Flatterer()
    judge = guarded(inner, constant_after=4, text="off", copied="off")

    def flags(value: int) -> list[str]:
        edited = np.full_like(SOURCE, value)
        return list(judge.judge(SOURCE, edited, "make it plain").notes["flags"])

    with caplog.at_level(logging.WARNING):
        assert [flags(v) for v in (1, 1, 1, 1, 2, 3)] == [[]] * 6  # the same edit again proves nothing
        assert [flags(v) for v in (4, 5)] == [["constant"]] * 2
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "semantic 9 and quality 8" in caplog.text
    inner.scores = Scores(2, 8)
    assert flags(6) == []


def test_that_scores_were_constant_for_a_while_is_not_kept_with_an_edit() -> None:
    inner = Flatterer()
    judge = CachedJudge(guarded(inner, constant_after=2, text="off", copied="off"))

    def flags(value: int) -> list[str]:
        return list(judge.judge(SOURCE, np.full_like(SOURCE, value), "make it plain").notes["flags"])

    assert [flags(1), flags(2)] == [[], ["constant"]]
    inner.scores = Scores(2, 8)
    assert flags(3) == []
    assert flags(2) == []


def test_judges_failures_pass_as_they_are() -> None:
    class Down(Flatterer):
        def judge(self, source: RGB, edited: RGB, instruction: str) -> Verdict:
            raise JudgeError("out of order")

    with pytest.raises(JudgeError, match="out of order"):
        guarded(Down()).judge(SOURCE, SOURCE, "make it blue")

    class Wild(Flatterer):
        def judge(self, source: RGB, edited: RGB, instruction: str) -> Verdict:
            return Verdict(scores=Scores(11, 8), judge_id="wild", prompt_hash="p")

    with pytest.raises(JudgeError, match="'flatterer' gave semantic=11"):
        guarded(Wild()).judge(SOURCE, SOURCE, "make it blue")


def test_guards_make_another_judge_and_so_does_each_setting_that_moves_a_score() -> None:
    variants = [guarded(), guarded(ceiling=1), guarded(text="cap"), guarded(unchanged_below=2)]
    told = {judge.judge(SOURCE, EDITED, "x").identity for judge in variants}
    assert len(told) == len(variants)
    assert all(judge.judge(SOURCE, EDITED, "x").identity in (judge.identities() or ()) for judge in variants)
    assert guarded(HalfJudge()).identities() is None
    assert guarded(constant_after=8).identities() == guarded().identities()


async def test_an_episode_whose_first_edit_did_nothing_starts_at_the_ceiling() -> None:
    playing = session(HalfPainter(), CachedJudge(guarded(HalfJudge(), text="off")))
    start = task("make the left half red", side=40)
    await playing.start(start, 0)
    turn = await playing.step(reply("do nothing at all"))
    assert turn.after is not None
    assert (turn.after.scores.semantic, turn.after.notes["flags"]) == (0.0, ["unchanged"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (dict(unchanged="capp"), "cap"),
        (dict(ceiling=11.0), "ceiling=11"),
        (dict(unchanged_below=0.0), "unchanged_below=0"),
        (dict(constant_after=1), "constant_after=1"),
    ],
)
def test_values_that_cannot_work_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        guarded(**options)


def test_the_inner_judge_must_be_named_and_known() -> None:
    with pytest.raises(ConfigError):
        plugins.build("judges", "guarded", {})
    with pytest.raises(UnknownName, match="'world'"):
        plugins.build("judges", "guarded", {"judge": {"name": "wold"}})
