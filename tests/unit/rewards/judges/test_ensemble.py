"""Several judges as one, over real chat servers: combining, who may fail, and whose verdict it is."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import Call, ChatServer, Fails, Hangs, Says, marks
from hypothesis import given
from hypothesis import strategies as st
from plain import HalfJudge, HalfPainter, raising, reply, task
from plain import session as plain_session

from thinkedit import plugins
from thinkedit.configs.schema import PluginConfig
from thinkedit.envs.editors.cache import CachedJudge
from thinkedit.errors import (
    BudgetExceeded,
    ConfigError,
    JudgeError,
    JudgeMismatch,
    JudgeRefused,
    JudgeUnreachable,
    JudgeUnreadable,
    ServiceError,
    ServiceTimeout,
    UnknownName,
)
from thinkedit.rewards.judges.base import Judge
from thinkedit.rewards.judges.ensemble import EnsembleConfig, EnsembleJudge
from thinkedit.testing import JudgeContract
from thinkedit.types import RGB, JudgeIdentity, Outcome, Scores, StoredState, Verdict

SOURCE = np.random.default_rng(2).integers(0, 256, (24, 32, 3), dtype=np.uint8)
EDITED = 255 - SOURCE
MARKS = {"one": marks(2, 4), "two": marks(9, 8), "three": marks(4, 6)}


def ensemble(server: ChatServer, *models: str, **options: Any) -> EnsembleJudge:
    quick: dict[str, Any] = dict(
        base_url=server.base_url, api_key_env=None, request_timeout_s=20.0, backoff_s=0.01, tries=2
    )
    quick |= options.pop("member", {})
    members = [PluginConfig("viescore", quick | {"model": model}) for model in models or MARKS]
    judge: EnsembleJudge = plugins.build("judges", "ensemble", {"judges": members, **options})
    return judge


@pytest.fixture
def by_model(server: ChatServer) -> dict[str, Any]:
    """What each model answers; both questions alike."""
    answers: dict[str, Any] = dict(MARKS)

    def choose(call: Call) -> Any:
        return answers[call.body["model"]]

    server.choose = choose
    return answers


class Fixed(Judge):
    """Gives the same scores to everything, or fails."""

    inline = True

    def __init__(self, name: str, scores: Scores = Scores(5, 5), told: bool = True) -> None:  # noqa: B008
        self.name, self.scores, self._told = name, scores, told
        self.fault: Any = None

    def judge(self, source: RGB, edited: RGB, instruction: str) -> Verdict:
        verdict = Verdict(scores=self.scores, judge_id=self.name, prompt_hash="p")
        return verdict if self.fault is None else self.fault(verdict)

    def identities(self) -> frozenset[JudgeIdentity] | None:
        return frozenset({(self.name, "p")}) if self._told else None


def of(*members: Judge, **options: Any) -> EnsembleJudge:
    return EnsembleJudge(EnsembleConfig(**options), members)


class TestEnsembleJudge(JudgeContract):
    @pytest.fixture(autouse=True)
    def _serve(self, server: ChatServer, by_model: dict[str, Any]) -> Iterator[None]:
        self._at, self._answers, self._made = server, by_model, list[EnsembleJudge]()
        yield
        for judge in self._made:
            judge.close()

    def _built(self, **options: Any) -> Judge:
        self._made.append(ensemble(self._at, **options))
        return self._made[-1]

    def make(self) -> Judge:
        return self._built()

    def source(self) -> RGB:
        return SOURCE.copy()

    def edited(self) -> RGB:
        return EDITED.copy()

    def instruction(self) -> str:
        return "paint it blue"

    def slow(self) -> Judge:
        self._answers["two"] = Hangs()
        return self._built(member={"request_timeout_s": 0.4, "tries": 1})

    def malformed(self) -> Iterator[Judge]:
        for answer in (marks(11, 6), Says('{"score": [8]}'), Says(""), Says("no idea")):
            self._answers["three"] = answer
            yield self.make()


@pytest.mark.parametrize(
    ("combine", "semantic", "quality"), [("mean", 17 / 3, 16 / 3), ("min", 2, 1), ("median", 5, 5)]
)
def test_each_score_is_combined_over_the_members(
    server: ChatServer, combine: str, semantic: float, quality: float
) -> None:
    said = {"sc": {"one": 2, "two": 10, "three": 5}, "pq": {"one": 10, "two": 1, "three": 5}}
    server.choose = lambda call: marks(10, said[call.half][call.body["model"]])
    scores = ensemble(server, combine=combine).judge(SOURCE, EDITED, "paint it blue").scores
    assert (scores.semantic, scores.quality) == (pytest.approx(semantic), pytest.approx(quality))


@pytest.mark.usefixtures("by_model")
def test_notes_keep_every_members_verdict(server: ChatServer) -> None:
    verdict = ensemble(server).judge(SOURCE, EDITED, "paint it blue")
    members = verdict.notes["members"]
    assert [m["judge_id"] for m in members] == [f"viescore@1/{model}" for model in MARKS]
    assert [(m["semantic"], m["quality"]) for m in members] == [(2, 2), (8, 8), (4, 4)]
    assert [m["notes"]["semantic"]["marks"] for m in members] == [[[2, 4]], [[9, 8]], [[4, 6]]]
    assert len({m["prompt_hash"] for m in members}) == 3


@pytest.mark.usefixtures("by_model")
def test_members_are_asked_side_by_side(server: ChatServer) -> None:
    server.delay_s = 2.0  # longer than a busy machine needs to send them all
    ensemble(server).judge(SOURCE, EDITED, "paint it blue")
    assert server.most_in_flight == 6


FAULTS = [
    (Says(None, refusal="no"), JudgeRefused),
    (marks(11, 6), JudgeUnreadable),
    (Fails(500), JudgeUnreachable),
]


@pytest.mark.parametrize(("answer", "kind"), FAULTS)
def test_one_member_that_fails_fails_the_verdict_in_the_same_way(
    server: ChatServer, by_model: dict[str, Any], answer: Any, kind: type[ServiceError]
) -> None:
    by_model["two"] = answer
    with pytest.raises(kind, match=r"\(two\)"):
        ensemble(server).judge(SOURCE, EDITED, "paint it blue")


@pytest.mark.parametrize(("answer", "kind"), FAULTS)
def test_fewer_are_enough_only_if_the_config_says_so_and_the_identity_tells_who(
    server: ChatServer, by_model: dict[str, Any], answer: Any, kind: type[ServiceError]
) -> None:
    judge = ensemble(server, at_least=2)
    full = judge.judge(SOURCE, EDITED, "paint it blue")
    by_model["two"] = answer
    partial = judge.judge(SOURCE, EDITED, "paint it blue")
    assert full.judge_id == "ensemble@1/mean(viescore@1/one, viescore@1/three, viescore@1/two)"
    assert partial.judge_id == "ensemble@1/mean(viescore@1/one, viescore@1/three)"
    assert partial.prompt_hash != full.prompt_hash
    assert partial.scores == Scores(3, 3)
    assert partial.notes["members"][1]["judge"] == "viescore"
    assert partial.notes["members"][1]["failed"].startswith(f"{kind.__name__}: ")
    by_model["one"] = answer
    with pytest.raises(kind, match=r"\(one\)"):
        judge.judge(SOURCE, EDITED, "paint it blue")


def test_a_silent_member_has_failed_and_others_may_be_enough() -> None:
    class Silent(Fixed):
        async def judge_async(self, source: RGB, edited: RGB, instruction: str) -> Verdict:
            await asyncio.sleep(60)
            raise AssertionError("nobody waits so long")

    members = Silent("one"), Fixed("two")
    verdict = of(*members, at_least=1, member_timeout_s=0.05).judge(SOURCE, EDITED, "x")
    assert verdict.judge_id == "ensemble@1/mean(two)"
    said = "ServiceTimeout: judge 'one' gave no verdict within member_timeout_s=0.05"
    assert verdict.notes["members"][0]["failed"] == said
    with pytest.raises(ServiceTimeout, match="'one' gave no verdict"):
        of(*members, member_timeout_s=0.05).judge(SOURCE, EDITED, "x")


def test_a_spent_budget_or_a_bug_is_no_outage_that_others_stand_in_for() -> None:
    one, two, three = Fixed("one"), Fixed("two"), Fixed("three")
    judge = of(one, two, three, at_least=1)
    for error in (BudgetExceeded("spent"), ZeroDivisionError("bug")):
        two.fault = raising(error)
        with pytest.raises(type(error)):
            judge.judge(SOURCE, EDITED, "x")


@pytest.mark.parametrize("scores", [Scores(float("nan"), 5), Scores(5, 11)])
def test_a_member_out_of_range_never_enters_a_mean(scores: Scores) -> None:
    bad = Fixed("bad", scores)
    with pytest.raises(JudgeError, match="'bad' gave"):
        of(bad, Fixed("one")).judge(SOURCE, EDITED, "x")
    assert of(bad, Fixed("one"), at_least=1).judge(SOURCE, EDITED, "x").scores == Scores(5, 5)
    bad.fault = lambda verdict: None
    with pytest.raises(JudgeError, match="NoneType"):
        of(bad, Fixed("one")).judge(SOURCE, EDITED, "x")


def test_which_error_is_raised_does_not_depend_on_who_is_faster() -> None:
    one, two = Fixed("one"), Fixed("two")
    one.fault, two.fault = raising(ServiceTimeout("late")), raising(JudgeRefused("no"))
    with pytest.raises(ServiceTimeout):
        of(one, two).judge(SOURCE, EDITED, "x")
    with pytest.raises(JudgeRefused):
        of(two, one).judge(SOURCE, EDITED, "x")


def test_cancelling_it_ends_all_calls(server: ChatServer, by_model: dict[str, Any]) -> None:
    by_model |= dict.fromkeys(MARKS, Hangs())

    async def impatient() -> None:
        asked = asyncio.create_task(ensemble(server).judge_async(SOURCE, EDITED, "x"))
        while server.in_flight < 6:
            await asyncio.sleep(0.01)
        asked.cancel()
        await asyncio.wait([asked])
        while server.dropped < 6:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(impatient(), 20))


# --- identity ------------------------------------------------------------------------------


def test_identity_follows_members_and_combination_but_not_their_order() -> None:
    one, two, three = Fixed("one"), Fixed("two"), Fixed("three")
    identities = {
        of(*members, combine=combine).judge(SOURCE, EDITED, "x").identity
        for members in ((one, two), (one, three), (one, two, three))
        for combine in ("mean", "min", "median")
    }
    assert len(identities) == 9
    assert (
        of(two, one).judge(SOURCE, EDITED, "x").identity == of(one, two).judge(SOURCE, EDITED, "x").identity
    )


def test_a_member_with_another_prompt_makes_another_judge(server: ChatServer) -> None:
    one = ensemble(server, "one", "two").judge(SOURCE, EDITED, "x")
    two = ensemble(server, "one", "two", member={"max_tokens": 50}).judge(SOURCE, EDITED, "x")
    assert one.judge_id == two.judge_id
    assert one.prompt_hash != two.prompt_hash


def test_it_tells_every_identity_that_its_quorum_allows() -> None:
    members = [Fixed(name) for name in ("one", "two", "three")]
    assert len(of(*members).identities() or ()) == 1
    assert len(of(*members, at_least=2).identities() or ()) == 4
    assert len(of(*members, at_least=1).identities() or ()) == 7
    assert of(*members, Fixed("four", told=False)).identities() is None
    nested = of(of(*members, at_least=2), Fixed("four"))
    assert len(nested.identities() or ()) == 4
    verdict = nested.judge(SOURCE, EDITED, "x")
    assert verdict.identity in (nested.identities() or ())


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_verdict_that_lacks_a_member_is_asked_for_again_when_it_is_back(
    tmp_path: Path, on_disk: bool
) -> None:
    one, two = Fixed("one", Scores(2, 2)), Fixed("two", Scores(8, 8))
    inner = of(one, two, at_least=1)
    judge = CachedJudge(of(inner, Fixed("three", Scores(5, 5))), tmp_path if on_disk else None)
    two.fault = raising(JudgeUnreachable("gone"))
    assert judge.judge(SOURCE, EDITED, "x").scores == Scores(3.5, 3.5)
    two.fault = None
    whole = judge.judge(SOURCE, EDITED, "x")
    assert whole.scores == Scores(5, 5)
    two.fault = raising(JudgeUnreachable("gone"))
    assert judge.judge(SOURCE, EDITED, "x") == whole


async def test_a_turn_judged_by_other_members_than_the_one_before_has_no_reward() -> None:
    one, two = HalfJudge(), Fixed("two")
    one.identities = lambda: frozenset({("half-judge@1", "none")})  # type: ignore[method-assign]
    playing = plain_session(HalfPainter(), of(one, two, at_least=1))
    await playing.start(task(), 0)
    two.fault = raising(JudgeUnreachable("gone"))
    turn = await playing.step(reply("paint it red"))
    assert turn.outcome is Outcome.JUDGE_FAILED
    assert turn.reward is None
    assert "can't be compared" in turn.detail


async def test_the_same_members_on_both_sides_give_a_reward() -> None:
    two = Fixed("two")
    two.fault = raising(JudgeUnreachable("gone"))
    one = HalfJudge()
    one.identities = lambda: frozenset({("half-judge@1", "none")})  # type: ignore[method-assign]
    playing = plain_session(HalfPainter(), of(one, two, at_least=1))
    await playing.start(task(), 0)
    assert (await playing.step(reply("paint it red"))).reward is not None


async def test_stored_scores_of_another_ensemble_are_refused_before_any_call() -> None:
    now, editor = of(Fixed("one"), Fixed("two"), at_least=1), HalfPainter()
    then = of(Fixed("one"), Fixed("three")).judge(SOURCE, EDITED, "x")
    playing, start = plain_session(editor, CachedJudge(now)), task()
    state = StoredState(task=start, edited=start.source, prompt="p", verdict=then)
    with pytest.raises(JudgeMismatch, match=r"three.* and the present judge is .*two"):
        await playing.start(state, 0)
    assert not editor.calls
    own = now.judge(start.source, start.source, "x")
    await playing.start(replace(state, verdict=own), 0)


# --- configuration -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (dict(combine="average"), "median"),
        (dict(at_least=0), "at_least=0"),
        (dict(member_timeout_s=0.0), "member_timeout_s=0"),
        (dict(at_least=4), "at_least=4"),
    ],
)
def test_values_that_cannot_work_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        of(Fixed("one"), Fixed("two"), Fixed("three"), **options)


def test_members_must_be_several_different_and_known() -> None:
    with pytest.raises(ConfigError, match="two members or more, got 1"):
        of(Fixed("one"))
    with pytest.raises(ConfigError, match="two members or more, got 0"):
        plugins.build("judges", "ensemble", {})
    with pytest.raises(ConfigError, match="same judge twice"):
        of(Fixed("one"), Fixed("one"))
    with pytest.raises(UnknownName, match="'world'"):
        plugins.build("judges", "ensemble", {"judges": [{"name": "wold"}, {"name": "world"}]})


def test_a_quorum_needs_members_whose_identity_is_known_beforehand() -> None:
    with pytest.raises(ConfigError, match=r"two can't tell.*identities"):
        of(Fixed("one"), Fixed("two", told=False), at_least=1)
    of(Fixed("one"), Fixed("two", told=False))


@given(
    st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10)), min_size=2, max_size=5),
    st.sampled_from(["mean", "min", "median"]),
)
def test_a_combined_score_lies_among_its_members_whatever_their_order(
    pairs: list[tuple[float, float]], combine: str
) -> None:
    members = [Fixed(str(k), Scores(*pair)) for k, pair in enumerate(pairs)]
    judge, other = of(*members, combine=combine), of(*members[::-1], combine=combine)

    async def ask() -> list[Verdict]:
        return [await each.judge_async(SOURCE, EDITED, "x") for each in (judge, other)]

    one, two = asyncio.run(ask())
    assert one.scores == two.scores
    assert one.identity == two.identity
    for got, axis in ((one.scores.semantic, 0), (one.scores.quality, 1)):
        marks = [pair[axis] for pair in pairs]
        assert min(marks) - 1e-9 <= got <= max(marks) + 1e-9  # a mean of equals may be a rounding step off
