"""The think-while-edit loop: what ends it, what fails in it, and which edit is its result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import plain
import pytest

from thinkedit.actors.inference import (
    EditResult,
    Event,
    Mode,
    Options,
    Run,
    RunStopped,
    Select,
    SelectionFailed,
    Stop,
    ThinkerError,
)
from thinkedit.actors.inference.folder import recorder
from thinkedit.actors.inference.loop import choose
from thinkedit.actors.inference.records import (
    Attempt,
    Critiqued,
    Edited,
    Finished,
    Judged,
    Started,
    Working,
)
from thinkedit.actors.inference.thinkers import PolicyThinker
from thinkedit.actors.play import Context, Reply
from thinkedit.envs.editors.base import Editor
from thinkedit.envs.protocol import Protocol
from thinkedit.envs.services import Services
from thinkedit.errors import ConfigError, DataError, EditorError, JudgeError, ServiceTimeout
from thinkedit.rewards.judges.base import Judge
from thinkedit.types import RGB, End, Observation, Scores, Verdict

TASK = plain.task("make the left half red")


class Says:
    """A policy that gives these replies in turn, the last one again and again; keeps what it saw."""

    def __init__(self, *replies: str) -> None:
        self._replies = replies
        self.asked: list[tuple[Observation, Context]] = []

    async def reply(self, observation: Observation, context: Context) -> Reply:
        self.asked.append((observation, context))
        return Reply(self._replies[min(len(self.asked), len(self._replies)) - 1])


def edit(
    policy: Any,
    *,
    editor: Editor | None = None,
    judge: Judge | None = None,
    tries: int = 1,
    timeout_s: float = 20.0,
    tell: Callable[[Event], None] = lambda event: None,
    stop: asyncio.Event | None = None,
    **options: Any,
) -> EditResult:
    services = Services(editor or plain.HalfPainter(), judge or plain.HalfJudge(), timeout_s, timeout_s)
    thinker = PolicyThinker(policy, Protocol(), {"name": "test"}, tries)
    run = Run(services, thinker, TASK.source, TASK.instruction, Options(**options), tell=tell)
    return asyncio.run(run.play(stop))


def prompts(result: EditResult) -> list[str]:
    return [attempt.prompt for attempt in result.attempts]


# --- what ends it ------------------------------------------------------------------------


def test_it_goes_on_until_the_thinker_is_satisfied() -> None:
    editor = plain.HalfPainter()
    policy = Says(plain.reply("paint it red"), plain.reply("anything", 9, 8))
    result = edit(policy, editor=editor, seed=7)
    assert (result.stop, result.chosen) == (Stop.ACCEPTED, 1)
    assert editor.calls == [("make the left half red", 7), ("paint it red", 7)]
    assert result.attempts[1].thought is not None
    assert result.attempts[1].thought.prompt is None
    assert result.attempts[1].thought.predicted == Scores(9, 8)
    assert result.prompt == "paint it red"
    np.testing.assert_array_equal(result.image, result.attempts[1].image)


def test_every_edit_starts_from_the_source() -> None:
    sources = []

    class Keeps(plain.HalfPainter):
        def edit(self, source: RGB, prompt: str, *, seed: int) -> RGB:
            sources.append(source.copy())
            return super().edit(source, prompt, seed=seed)

    edit(plain.Insists(), editor=Keeps(), turns=2)
    assert len(sources) == 3
    for source in sources:
        np.testing.assert_array_equal(source, TASK.source)


def test_a_repeated_prompt_ends_it_without_another_edit() -> None:
    editor = plain.HalfPainter()
    result = edit(Says(plain.reply("  make the left half red ")), editor=editor)
    assert (result.stop, len(result.attempts), len(editor.calls)) == (Stop.REPEATED, 1, 1)


def test_turns_are_critiques_and_edits_are_one_more() -> None:
    policy = Says(plain.reply("one"), plain.reply("two"), plain.reply("three"))
    result = edit(policy, turns=3)
    assert result.stop is Stop.TURN_LIMIT
    assert prompts(result) == ["make the left half red", "one", "two", "three"]
    assert [seen.turn for seen, _ in policy.asked] == [0, 1, 2]
    assert [seen.turns_left for seen, _ in policy.asked] == [3, 2, 1]
    assert result.attempts[3].thought is None
    assert result.chosen == 3


def test_run_and_session_take_the_same_way() -> None:
    """The training loop and this one: same replies, same prompts, same pictures, same end."""
    for replies, end in (
        ((plain.reply("paint red"), plain.reply("x", 8, 8)), End.ACCEPTED),
        ((plain.reply("paint red"), plain.reply("paint red")), End.REPEATED),
        ((plain.reply("paint red"), plain.reply("red badly"), plain.reply("blue")), End.TURN_LIMIT),
    ):
        result = edit(Says(*replies), turns=3, seed=5)
        session = plain.session(max_turns=3)

        async def play(session: Any = session, replies: tuple[str, ...] = replies) -> None:
            await session.start(TASK, 5)
            for reply in replies:
                await session.step(reply)

        asyncio.run(play())
        turns = session.turns
        assert turns[-1].end is end
        assert result.stop.value == end.value
        seen = [turns[0].prompt, *(t.critique.answer for t in turns if t.critique and not t.kept)]
        assert prompts(result) == seen
        np.testing.assert_array_equal(result.image, turns[-1].edited)


# --- the thinker's failures --------------------------------------------------------------


def test_an_unreadable_reply_is_sampled_anew_with_another_seed() -> None:
    policy = Says("I like it.", plain.reply("x", 9, 9))
    result = edit(policy, tries=3, seed=2)
    assert result.stop is Stop.ACCEPTED
    first, second = (context.seed for _, context in policy.asked)
    assert first == 2
    assert first != second
    assert result.attempts[0].thought is not None
    assert result.attempts[0].thought.faults == ("missing_think: 'I like it.'",)


def test_a_thinker_that_stays_unreadable_is_a_failure_and_no_acceptance() -> None:
    policy = Says(plain.reply("paint it red"), "no")
    result = edit(policy, tries=2)
    assert (result.stop, result.chosen) == (Stop.THINKER_UNREADABLE, 1)
    assert result.attempts[1].thought is None
    assert "no reply of 2 could be read" in result.detail
    assert result.unread == ("no", "no")
    assert len(policy.asked) == 3


def test_a_policy_that_raises_is_a_failure_of_the_thinker() -> None:
    class Raises:
        async def reply(self, observation: Observation, context: Context) -> Reply:
            raise ValueError("prompt too long")

    result = edit(Raises(), tries=3)
    assert result.stop is Stop.THINKER_FAILED
    assert "ValueError: prompt too long" in result.detail


# --- the editor's failures ---------------------------------------------------------------


def test_a_later_edit_that_fails_keeps_the_one_before() -> None:
    editor = plain.Broken(plain.raising(EditorError("out of memory")))
    result = edit(Says(plain.reply("paint it red")), editor=editor)
    assert (result.stop, result.chosen, len(result.attempts)) == (Stop.EDITOR_FAILED, 0, 1)
    assert result.detail == "out of memory"


def test_a_first_edit_that_fails_is_an_error() -> None:
    editor = plain.Broken(plain.raising(EditorError("out of memory")), good=0)
    with pytest.raises(EditorError, match="out of memory"):
        edit(Says(plain.reply("paint it red")), editor=editor)


def test_an_edit_has_a_deadline() -> None:
    result = edit(Says(plain.reply("paint it red")), editor=plain.SlowPainter(), timeout_s=0.1)
    assert result.stop is Stop.EDITOR_FAILED
    assert "0.1 s" in result.detail


@pytest.mark.parametrize("instruction", ["", "  \n"])
def test_an_empty_instruction_is_refused(instruction: str) -> None:
    services = Services(plain.HalfPainter(), plain.HalfJudge(), 1, 1)
    with pytest.raises(DataError, match="instruction is empty"):
        Run(services, PolicyThinker(Says(""), Protocol(), {}, 1), TASK.source, instruction, Options())


# --- modes -------------------------------------------------------------------------------


def test_before_words_the_first_prompt_and_makes_one_edit() -> None:
    editor, policy = plain.HalfPainter(), Says(plain.reply("paint the left half pure red"))
    result = edit(policy, editor=editor, mode=Mode.BEFORE)
    assert result.stop is Stop.ONE_EDIT
    assert [prompt for prompt, _ in editor.calls] == ["paint the left half pure red"]
    ((seen, _),) = policy.asked
    np.testing.assert_array_equal(seen.edited, TASK.source)
    assert result.rewrite is not None
    assert result.rewrite.prompt == "paint the left half pure red"
    assert result.attempts[0].thought is None


def test_before_keeps_the_instruction_where_the_thinker_has_no_better_words() -> None:
    """And never takes the untouched source for an edit, whatever the thinker thinks of it."""
    result = edit(Says(plain.reply("x", 10, 10)), mode=Mode.BEFORE)
    assert prompts(result) == [TASK.instruction]


def test_before_fails_rather_than_going_on_with_the_plain_instruction() -> None:
    editor = plain.HalfPainter()
    with pytest.raises(ThinkerError):
        edit(Says("no"), editor=editor, mode=Mode.BEFORE, tries=2)
    assert editor.calls == []


def test_before_and_while() -> None:
    policy = Says(plain.reply("first red"), plain.reply("second red"), plain.reply("x", 8, 8))
    result = edit(policy, mode=Mode.BEFORE_WHILE)
    assert prompts(result) == ["first red", "second red"]
    assert result.stop is Stop.ACCEPTED
    assert [seen.instruction for seen, _ in policy.asked] == [TASK.instruction] * 3


# --- selection ---------------------------------------------------------------------------


def test_best_predicted_asks_once_more_about_the_last_edit() -> None:
    policy = Says(plain.reply("one", 4, 4), plain.reply("two", 7, 6), plain.reply("three", 3, 3))
    result = edit(policy, turns=2, select=Select.BEST_PREDICTED)
    assert len(policy.asked) == 3
    assert result.attempts[2].thought is not None
    assert result.chosen == 1


def test_best_judge_is_by_the_judge_and_not_by_the_thinker() -> None:
    policy = Says(plain.reply("red badly", 1, 1), plain.reply("paint it blue", 7, 7))
    result = edit(policy, turns=2, select=Select.BEST_JUDGE)
    assert [a.verdict.scores.semantic for a in result.attempts if a.verdict] == [10, 5, 0]
    assert result.chosen == 0


def test_last_asks_no_judge() -> None:
    judge = plain.HalfJudge()
    edit(plain.Insists(), judge=judge, turns=2)
    assert judge.calls == []


def test_the_judge_hears_the_users_words() -> None:
    judge = plain.HalfJudge()
    edit(Says(plain.reply("paint it red")), judge=judge, turns=2, select=Select.BEST_JUDGE)
    assert set(judge.calls) == {TASK.instruction}


def test_an_edit_that_could_not_be_judged_is_not_chosen() -> None:
    judge = plain.BrokenJudge(plain.raising(JudgeError("busy")))
    result = edit(
        Says(plain.reply("one"), plain.reply("two")), judge=judge, turns=2, select=Select.BEST_JUDGE
    )
    assert result.chosen == 0
    assert [a.judge_fault for a in result.attempts] == ["", "busy", "busy"]


def test_without_any_verdict_there_is_no_best_but_the_edits_are_kept(tmp_path: Path) -> None:
    judge = plain.BrokenJudge(plain.raising(JudgeError("busy")), good=0)
    none_has_one = r"none of the 2 edits has a score \(busy\)"
    told: list[Event] = []

    def tell(event: Event) -> None:
        told.append(event)
        recorder(tmp_path)(event)

    with pytest.raises(SelectionFailed, match=none_has_one):
        edit(Says(plain.reply("one"), plain.reply("one")), judge=judge, select=Select.BEST_JUDGE, tell=tell)
    assert isinstance(told[-1], Finished)
    with pytest.raises(SelectionFailed, match=none_has_one):
        _ = told[-1].result.image
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"source.png", "edit_0.png", "edit_1.png", "sheet.png", "edit.json"}


def test_of_equals_the_earlier_is_chosen() -> None:
    verdict = Verdict(scores=Scores(4, 9), judge_id="j", prompt_hash="p")
    attempts = [Attempt(index=k, prompt="p", image=TASK.source, seconds=0, verdict=verdict) for k in range(3)]
    assert choose(attempts, Select.BEST_JUDGE) == 0
    attempts[2] = replace(attempts[2], verdict=replace(verdict, scores=Scores(6, 6.1)))  # 6.05 > 6
    assert choose(attempts, Select.BEST_JUDGE) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"turns": 0}, "turns"),
        ({"seed": -1}, "seed"),
        ({"mode": Mode.BEFORE, "select": Select.BEST_JUDGE}, "makes one edit"),
        ({"mode": Mode.EXPERT, "select": Select.BEST_PREDICTED}, "predicts no scores"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Options(**options)


# --- watching and stopping ---------------------------------------------------------------


def test_events_come_in_the_order_of_the_work() -> None:
    told: list[Event] = []
    result = edit(
        Says(plain.reply("red"), plain.reply("x", 8, 8)), tell=told.append, select=Select.BEST_JUDGE
    )
    shown = [event.who if isinstance(event, Working) else type(event).__name__ for event in told]
    turn = ["editor", "Edited", "judge", "Judged", "thinker", "Critiqued"]
    assert shown == ["Started", *turn, *turn, "Finished"]
    edited = [event.attempt for event in told if isinstance(event, Edited)]
    assert [attempt.thought for attempt in edited] == [None, None]
    critiqued = [event.attempt for event in told if isinstance(event, Critiqued | Judged)]
    assert critiqued[-1] is result.attempts[-1]
    assert isinstance(told[0], Started)
    with pytest.raises(ValueError, match="read-only"):
        told[0].source[:] = 0


class Waits:
    """A policy that never answers; says when it was asked."""

    def __init__(self, stop: asyncio.Event, after: int = 0) -> None:
        self._stop, self._left, self.cancelled = stop, after, False

    async def reply(self, observation: Observation, context: Context) -> Reply:
        if self._left:
            self._left -= 1
            return Reply(plain.reply(f"red {self._left}"))
        self._stop.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        raise AssertionError("nobody stopped it")


def test_stopping_ends_the_work_under_way_and_keeps_what_is_there() -> None:
    stop = asyncio.Event()
    policy = Waits(stop, after=1)
    result = edit(policy, stop=stop)
    assert (result.stop, len(result.attempts), result.chosen) == (Stop.STOPPED, 2, 1)
    assert policy.cancelled


def test_stopping_before_the_first_edit_leaves_nothing() -> None:
    stop = asyncio.Event()
    policy = Waits(stop)
    with pytest.raises(RunStopped):
        edit(policy, stop=stop, mode=Mode.BEFORE)
    assert policy.cancelled


def test_cancelling_the_caller_cancels_the_work() -> None:
    stop = asyncio.Event()
    policy = Waits(stop)
    services = Services(plain.HalfPainter(), plain.HalfJudge(), 5, 5)
    run = Run(services, PolicyThinker(policy, Protocol(), {}, 1), TASK.source, TASK.instruction, Options())

    async def cancel() -> None:
        task = asyncio.ensure_future(run.play())
        await stop.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert policy.cancelled


def test_a_late_first_edit_is_typed() -> None:
    class Slow(plain.SlowPainter):
        def __init__(self) -> None:
            super().__init__()
            self.calls.append(("warm", 0))

    with pytest.raises(ServiceTimeout):
        edit(Says(""), editor=Slow(), timeout_s=0.1)
