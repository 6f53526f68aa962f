"""The state machine: what ends an episode, what a turn costs, and what a failure leaves behind."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from plain import (
    COLOURS,
    Broken,
    BrokenJudge,
    HalfJudge,
    HalfPainter,
    SlowPainter,
    raising,
    reply,
    session,
    task,
)

from thinkedit.configs.schema import EpisodeConfig
from thinkedit.envs.protocol import Protocol
from thinkedit.envs.session import EditSession
from thinkedit.errors import (
    BudgetExceeded,
    ConfigError,
    DataError,
    EditorError,
    EpisodeOver,
    JudgeError,
    JudgeMismatch,
    ServiceError,
    ServiceTimeout,
)
from thinkedit.types import End, Outcome, ParseError, Scores, StoredState, Verdict


async def test_an_episode_edits_from_the_source_and_judges_by_the_instruction() -> None:
    editor, judge, start = HalfPainter(), HalfJudge(), task("badly make it red")
    one = session(editor, judge)
    seen = await one.start(start, 7)
    assert (seen.prompt, seen.turn, seen.turns_left) == (start.instruction, 0, 3)
    assert one.verdict.scores == Scores(5.0, 9.0)
    turn = await one.step(reply("paint it red"))
    assert turn.before.scores.semantic == 5.0
    assert turn.after is not None
    assert turn.after.scores.semantic == 10.0
    assert (turn.outcome, turn.kept, turn.end, turn.done) == (Outcome.OK, False, None, False)
    assert one.observation.prompt == "paint it red"
    assert (one.observation.turn, one.observation.turns_left) == (1, 2)
    await one.step(reply("paint it blue"))
    assert (one.observation.edited[:, 0] == COLOURS["blue"]).all()
    assert (one.observation.edited[:, 6:] == start.source[:, 6:]).all()
    assert editor.calls == [("badly make it red", 7), ("paint it red", 7), ("paint it blue", 7)]
    assert judge.calls == [start.instruction] * 3


async def test_scores_at_the_threshold_accept_without_an_edit() -> None:
    editor, judge = HalfPainter(), HalfJudge()
    one = session(editor, judge)
    await one.start(task(), 0)
    turn = await one.step(reply("paint it blue", 8, 8))
    assert (turn.kept, turn.terminated, turn.truncated, turn.end) == (True, True, False, End.ACCEPTED)
    assert turn.after == turn.before
    assert turn.reward is not None
    assert turn.reward.terms["semantic"] == 0.5
    assert one.done
    assert one.episode().final == turn.before
    assert (len(editor.calls), len(judge.calls)) == (1, 1)


@pytest.mark.parametrize(("semantic", "quality"), [(8, 7.9), (7.9, 10)])
async def test_one_score_below_the_threshold_goes_on(semantic: float, quality: float) -> None:
    one = session()
    await one.start(task(), 0)
    turn = await one.step(reply("paint it blue", semantic, quality))
    assert not turn.kept
    assert not turn.done


async def test_repeating_the_prompt_keeps_the_edit() -> None:
    editor = HalfPainter()
    one = session(editor)
    await one.start(task("  make it red  "), 0)
    turn = await one.step(reply(" make it red\n"))
    assert (turn.kept, turn.terminated, turn.end) == (True, True, End.REPEATED)
    assert len(editor.calls) == 1


async def test_a_malformed_reply_costs_a_turn_and_nothing_else() -> None:
    editor, judge = HalfPainter(), HalfJudge()
    one = session(editor, judge)
    before = await one.start(task(), 0)
    turn = await one.step("I would rather not.")
    assert (turn.outcome, turn.error, turn.critique) == (Outcome.MALFORMED, ParseError.MISSING_THINK, None)
    assert turn.reward is not None
    assert turn.reward.total == 0
    assert (turn.done, turn.kept, turn.after) == (False, False, turn.before)
    after = one.observation
    assert (after.turn, after.turns_left, after.prompt) == (1, 2, before.prompt)
    assert after.edited is before.edited
    assert (len(editor.calls), len(judge.calls)) == (1, 1)
    assert (await one.step(reply("paint it blue"))).outcome is Outcome.OK


@pytest.mark.parametrize("texts", [[reply("paint it blue"), reply("paint it green")], ["junk", "more"]])
async def test_the_turn_limit_truncates_but_a_single_turn_terminates(texts: list[str]) -> None:
    for max_turns, ends in ((2, (False, True)), (1, (True, False))):
        one = session(max_turns=max_turns)
        await one.start(task(), 0)
        for text in texts[:max_turns]:
            assert not one.done
            turn = await one.step(text)
        assert (turn.terminated, turn.truncated) == ends
        assert turn.end is End.TURN_LIMIT
        assert one.done
        assert one.observation.turns_left == 0


async def test_a_stored_state_is_taken_up_without_a_call() -> None:
    editor, judge, start = HalfPainter(), HalfJudge(), task()
    verdict = replace(judge.judge(start.source, start.source, start.instruction), scores=Scores(2, 9))
    judge.calls.clear()
    state = StoredState(
        task=start, edited=start.source[::-1].copy(), prompt="make it redder", verdict=verdict
    )
    one = session(editor, judge, max_turns=1)
    seen = await one.start(state, 3)
    assert (seen.prompt, one.verdict) == ("make it redder", verdict)
    assert (seen.edited == state.edited).all()
    assert not editor.calls
    assert not judge.calls
    turn = await one.step(reply("paint it red", 2, 9))
    assert turn.terminated
    assert turn.reward is not None
    assert turn.reward.total == pytest.approx(0.5 + 0.1 + 0.3 * 0.9 + 0.1 * 0.5)
    assert one.episode().first == verdict


async def test_a_recipe_for_stored_states_never_makes_the_first_edit_itself() -> None:
    editor = HalfPainter()
    parts = session(editor)
    stored = EpisodeConfig(max_turns=1, start="stored")
    one = EditSession(editor, parts.services.judge, parts.rubric, parts.protocol, stored)
    with pytest.raises(DataError, match=r"episode\.start=stored"):
        await one.start(task(), 0)
    assert not editor.calls


async def test_a_stored_state_of_another_judge_is_never_compared() -> None:
    start = task()
    verdict = Verdict(scores=Scores(2, 9), judge_id="another@1", prompt_hash="none")
    one = session()
    await one.start(StoredState(task=start, edited=start.source, prompt="p", verdict=verdict), 0)
    with pytest.raises(JudgeMismatch, match="another@1"):
        await one.step(reply("paint it red"))


EDITOR_FAULTS: list[tuple[Callable[..., object], Outcome]] = [
    (raising(RuntimeError("boom")), Outcome.EDITOR_FAILED),
    (raising(EditorError("503")), Outcome.EDITOR_FAILED),
    (raising(BudgetExceeded("spent")), Outcome.BUDGET),
    (raising(ServiceTimeout("late")), Outcome.TIMEOUT),
    (raising(TimeoutError()), Outcome.TIMEOUT),
    (lambda image: None, Outcome.EDITOR_FAILED),
    (lambda image: image[:-1], Outcome.EDITOR_FAILED),
    (lambda image: image[..., 0], Outcome.EDITOR_FAILED),
    (lambda image: image.astype(np.float32), Outcome.EDITOR_FAILED),
    (lambda image: np.full_like(image, 7), Outcome.EDITOR_FAILED),
]


@pytest.mark.parametrize(("fault", "outcome"), EDITOR_FAULTS)
async def test_a_failed_edit_ends_the_episode_without_a_reward(
    fault: Callable[..., object], outcome: Outcome
) -> None:
    judge = HalfJudge()
    one = session(Broken(fault), judge)
    before = await one.start(task(), 0)
    turn = await one.step(reply("paint it blue"))
    assert (turn.outcome, turn.reward, turn.after, turn.end) == (outcome, None, None, End.FAILED)
    assert (turn.terminated, turn.truncated) == (False, True)
    assert turn.detail
    assert turn.critique is not None
    assert turn.edited is before.edited
    assert one.done
    assert one.episode().outcome is outcome
    assert one.episode().final is None
    assert len(judge.calls) == 1


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (raising(KeyError("score")), Outcome.JUDGE_FAILED),
        (raising(JudgeError("refused")), Outcome.JUDGE_FAILED),
        (raising(BudgetExceeded("spent")), Outcome.BUDGET),
        (lambda verdict: None, Outcome.JUDGE_FAILED),
        (lambda verdict: replace(verdict, scores=Scores(float("nan"), 5)), Outcome.JUDGE_FAILED),
        (lambda verdict: replace(verdict, scores=Scores(5, 10.5)), Outcome.JUDGE_FAILED),
    ],
)
async def test_a_failed_verdict_ends_the_episode_without_a_reward(
    fault: Callable[..., object], outcome: Outcome
) -> None:
    one = session(judge=BrokenJudge(fault))
    before = await one.start(task(), 0)
    turn = await one.step(reply("paint it blue"))
    assert (turn.outcome, turn.reward, turn.after) == (outcome, None, None)
    assert turn.edited is before.edited


async def test_a_late_edit_is_a_timeout() -> None:
    one = session(SlowPainter(), edit_timeout_s=0.05)
    await one.start(task(), 0)
    turn = await one.step(reply("paint it blue"))
    assert (turn.outcome, turn.reward) == (Outcome.TIMEOUT, None)
    assert "0.05 s" in turn.detail


async def test_a_failed_start_is_raised_and_recorded() -> None:
    one = session(Broken(raising(RuntimeError("boom")), good=0))
    with pytest.raises(EditorError, match="boom") as caught:
        await one.start(task(), 0)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert one.done
    episode = one.episode()
    assert (episode.outcome, episode.first_edit, episode.first) == (Outcome.EDITOR_FAILED, None, None)
    with pytest.raises(EpisodeOver):
        await one.step(reply("paint it blue"))

    two = session(judge=BrokenJudge(raising(JudgeError("refused")), good=0))
    with pytest.raises(ServiceError, match="refused"):
        await two.start(task(), 0)
    assert two.episode().outcome is Outcome.JUDGE_FAILED
    assert two.episode().first_edit is not None


async def test_a_constant_edit_of_a_constant_source_is_an_edit() -> None:
    plain = replace(task(), source=np.full((8, 12, 3), 9, np.uint8))
    one = session()
    await one.start(replace(plain, instruction="do nothing"), 0)
    assert one.verdict.scores.quality == 9


async def test_a_step_before_start_or_after_the_end_is_refused() -> None:
    one = session(max_turns=1)
    assert one.done
    with pytest.raises(EpisodeOver):
        await one.step(reply("a"))
    await one.start(task(), 0)
    await one.step("junk")
    with pytest.raises(EpisodeOver):
        await one.step(reply("a"))
    await one.start(task(), 1)
    assert not one.done
    assert one.turns == ()


@pytest.mark.parametrize(
    "spoil",
    [
        {"source": np.zeros((4, 4), np.uint8)},
        {"source": np.zeros((4, 4, 4), np.uint8)},
        {"source": np.zeros((0, 4, 3), np.uint8)},
        {"source": np.zeros((4, 4, 3), np.float32)},
        {"instruction": " \n"},
    ],
)
async def test_a_task_that_is_none_is_refused(spoil: dict[str, object]) -> None:
    with pytest.raises(DataError, match="t0"):
        await session().start(replace(task(), **spoil), 0)


async def test_an_editor_that_changes_the_source_is_caught() -> None:
    class Vandal(HalfPainter):
        def edit(self, source: np.ndarray, prompt: str, *, seed: int) -> np.ndarray:
            source[:] = 0
            return source

    start = task()
    kept = start.source.copy()
    with pytest.raises(EditorError, match="read-only"):
        await session(Vandal()).start(start, 0)
    assert (start.source == kept).all()


async def test_images_that_were_handed_out_can_not_be_changed() -> None:
    one = session()
    seen = await one.start(task(), 0)
    for image in (seen.source, seen.edited):
        with pytest.raises(ValueError, match="read-only"):
            image[0, 0] = 0


async def test_state_keys_are_equal_exactly_for_equal_states() -> None:
    one, two = session(), session()
    for each in (one, two):
        await each.start(task(), 0)
    assert one.state_key == two.state_key
    first = await one.step(reply("paint it blue", think="one way"))
    same = await two.step(reply("paint it blue", think="another way"))
    assert first.state_key == same.state_key
    assert one.state_key == two.state_key != first.state_key
    # The same picture by another prompt is another state.
    three = session()
    await three.start(task(), 0)
    await three.step(reply("make it blue"))
    assert (three.observation.edited == one.observation.edited).all()
    assert three.state_key != one.state_key


async def test_time_is_kept_in_the_episode() -> None:
    one = session(SlowPainter())
    await one.start(task(), 0)
    await one.step(reply("paint it blue"))
    timings = one.episode().timings
    assert timings["edit_s"] >= 0.5
    assert 0 <= timings["judge_s"] < 0.5


async def test_sessions_side_by_side_do_not_mix() -> None:
    editor, judge = HalfPainter(), HalfJudge()
    sessions = [session(editor, judge) for _ in range(20)]

    async def play(k: int) -> float:
        colour = list(COLOURS)[k % 3]
        await sessions[k].start(task(f"make it {colour} badly", uid=f"t{k}"), k)
        turn = await sessions[k].step(reply(f"paint it {colour}"))
        assert turn.after is not None
        return turn.after.scores.semantic

    assert await asyncio.gather(*(play(k) for k in range(20))) == [10.0] * 20


def test_a_session_refuses_a_threshold_that_the_prompt_does_not_name() -> None:
    parts = session()
    with pytest.raises(ConfigError, match="accept_at"):
        EditSession(
            parts.services.editor, parts.services.judge, parts.rubric, Protocol(accept_at=7), EpisodeConfig()
        )
    with pytest.raises(ConfigError, match="max_turns"):
        session(max_turns=0)


async def test_garbled_replies_never_break_the_loop() -> None:
    rng = np.random.default_rng(0)
    pieces = [
        reply("paint it red badly"),
        "<think>",
        "</answer>",
        "\ud800",
        "{",
        '"semantic"',
        "\x00",
        "<score>",
    ]
    one = session()
    for _ in range(300):
        await one.start(task(), 0)
        while not one.done:
            text = "".join(rng.choice(pieces) for _ in range(rng.integers(0, 4)))
            turn = await one.step(text)
            assert turn.reward is not None
