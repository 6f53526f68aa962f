"""The contract kit lets honest plug-ins pass and finds each kind of broken promise."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from thinkedit import plugins
from thinkedit.envs.editors.base import Editor, EditRequest
from thinkedit.errors import JudgeError
from thinkedit.rewards.judges.base import Judge
from thinkedit.rewards.terms import Graded, RewardTerm
from thinkedit.testing import EditorContract, JudgeContract, RewardTermContract
from thinkedit.types import RGB, Scores, Verdict

SOURCE = np.arange(8 * 9 * 3, dtype=np.uint8).reshape(8, 9, 3)


class Honest(Editor):
    name = "honest"
    inline = True

    def edit(self, source: RGB, prompt: str, *, seed: int) -> RGB:
        return source ^ np.uint8((len(prompt) + seed) % 256)


class TestHonestEditor(EditorContract):
    def make(self) -> Editor:
        return Honest()

    def source(self) -> RGB:
        return SOURCE.copy()


class HonestJudge(Judge):
    name = "honest"

    def judge(self, source: RGB, edited: RGB, instruction: str) -> Verdict:
        if source.shape != edited.shape:
            raise JudgeError("pictures of two sizes")
        same = float((source == edited).mean())
        return Verdict(scores=Scores(10 * same, 5.0), judge_id="honest@1", prompt_hash="0")


@pytest.mark.parametrize("name", sorted(plugins.available("reward_terms")))
class TestOurTerms(RewardTermContract):
    @pytest.fixture(autouse=True)
    def _named(self, name: str) -> None:
        self._name = name

    def make(self) -> RewardTerm:
        term = plugins.build("reward_terms", self._name)
        assert isinstance(term, RewardTerm)
        return term


class Shrinks(Honest):
    def edit(self, source: RGB, prompt: str, *, seed: int) -> RGB:
        return source[:-1].copy()


class Scribbles(Honest):
    def edit(self, source: RGB, prompt: str, *, seed: int) -> RGB:
        source[0] = 0
        return source.copy()


class HandsBackTheSource(Honest):
    def edit(self, source: RGB, prompt: str, *, seed: int) -> RGB:
        return source


class Remembers(Honest):
    """Hands out the picture that it keeps for itself."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, int], RGB] = {}

    def edit(self, source: RGB, prompt: str, *, seed: int) -> RGB:
        return self._kept.setdefault((prompt, seed), super().edit(source, prompt, seed=seed))


class Rolls(Honest):
    """Says it is deterministic, and is not."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng()

    def edit(self, source: RGB, prompt: str, *, seed: int) -> RGB:
        return self._rng.integers(0, 256, source.shape, dtype=np.uint8)


class SmallSeeds(Honest):
    def edit(self, source: RGB, prompt: str, *, seed: int) -> RGB:
        if seed >= 2**16:
            raise ValueError("seed")
        return super().edit(source, prompt, seed=seed)


class OneSeedABatch(Honest):
    async def edit_many(self, requests: Sequence[EditRequest]) -> list[RGB | Exception]:
        return [self.edit(r.source, r.prompt, seed=requests[0].seed) for r in requests]


class Sleeps(Honest):
    def edit(self, source: RGB, prompt: str, *, seed: int) -> RGB:
        time.sleep(0.06)
        return super().edit(source, prompt, seed=seed)


class Stubborn(Honest):
    """Takes its time to give way."""

    async def edit_async(self, source: RGB, prompt: str, *, seed: int) -> RGB:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(0.5)
        return source


class OneLoopOnly(Honest):
    """Keeps what belongs to the event loop that it was first used in."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    async def edit_async(self, source: RGB, prompt: str, *, seed: int) -> RGB:
        self._loop = self._loop or asyncio.get_running_loop()
        assert self._loop is asyncio.get_running_loop()
        return self.edit(source, prompt, seed=seed)


class NoKey(Honest):
    def settings(self) -> dict[str, Any]:
        return {"array": (1, 2)}


class ClosesOnce(Honest):
    open = True

    def close(self) -> None:
        assert self.open
        self.open = False


class EditorKit(EditorContract):
    def __init__(self, make: Callable[[], Editor]) -> None:
        self._make = make

    def make(self) -> Editor:
        return self._make()

    def source(self) -> RGB:
        return SOURCE.copy()

    def slow(self) -> Editor:
        return self._make()

    def malformed(self) -> list[Editor]:
        return [self._make()]


def blocking(editor: Editor, source: RGB, prompt: str) -> RGB:
    return editor.edit(source, prompt, seed=0)


@pytest.mark.parametrize(
    ("broken", "promise", "arguments"),
    [
        (Shrinks, "any_text_gives_an_image_of_the_same_size", ("x",)),
        (Scribbles, "the_source_may_be_read_only_and_survives", (blocking,)),
        (HandsBackTheSource, "a_result_belongs_to_the_caller", (blocking,)),
        (Remembers, "a_result_belongs_to_the_caller", (blocking,)),
        (Rolls, "a_deterministic_editor_repeats_itself_in_a_new_instance", ()),
        (SmallSeeds, "every_seed_that_a_run_may_draw_is_taken", (2**31 - 1,)),
        (OneSeedABatch, "a_batch_gives_what_single_calls_give", ((0, 1, 0),)),
        (Rolls, "a_batch_gives_what_single_calls_give", ((0,),)),
        (Rolls, "threads_that_ask_at_once_get_what_they_would_get_alone", ()),
        (Sleeps, "an_inline_editor_is_quick", ()),
        (OneLoopOnly, "one_instance_serves_one_event_loop_after_another", ()),
        (Honest, "silence_is_a_timeout", (blocking,)),
        (Honest, "an_answer_that_is_no_edit_is_an_error_and_no_image", (blocking,)),
        (NoKey, "name_revision_and_settings_can_be_part_of_a_key", ()),
        (ClosesOnce, "it_may_be_closed_twice_before_and_after_use", ()),
    ],
)
def test_a_broken_promise_of_an_editor_is_found(
    broken: type[Editor], promise: str, arguments: tuple[Any, ...]
) -> None:
    with pytest.raises((AssertionError, ValueError, pytest.fail.Exception)):
        getattr(EditorKit(broken), f"test_{promise}")(*arguments)


def test_an_edit_that_cannot_be_cancelled_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thinkedit.testing.editor.PATIENCE_S", 0.1)
    with pytest.raises(AssertionError, match="goes on"):
        EditorKit(Stubborn).test_a_caller_that_gives_up_leaves_it_usable()


class TestHonestJudge(JudgeContract):
    def make(self) -> Judge:
        return HonestJudge()

    def source(self) -> RGB:
        return SOURCE.copy()

    def edited(self) -> RGB:
        return 255 - SOURCE

    def instruction(self) -> str:
        return "invert it"


class JudgeKit(TestHonestJudge):
    __test__ = False

    def __init__(self, make: Callable[[], Judge]) -> None:
        self._make = make

    def make(self) -> Judge:
        return self._make()

    def slow(self) -> Judge:
        return self._make()

    def malformed(self) -> list[Judge]:
        return [self._make()]


class Eleven(HonestJudge):
    def judge(self, source: RGB, edited: RGB, instruction: str) -> Verdict:
        return replace(super().judge(source, source, instruction), scores=Scores(11.0, 5.0))


class Nothing(HonestJudge):
    def judge(self, source: RGB, edited: RGB, instruction: str) -> Verdict:
        return replace(super().judge(source, source, instruction), scores=Scores(5.0, float("nan")))


class Anonymous(HonestJudge):
    def judge(self, source: RGB, edited: RGB, instruction: str) -> Verdict:
        return replace(super().judge(source, edited, instruction), prompt_hash="")


class Choosy(HonestJudge):
    def judge(self, source: RGB, edited: RGB, instruction: str) -> Verdict:
        instruction.encode("ascii")
        return super().judge(source, edited, instruction)


class SizeBlind(HonestJudge):
    def judge(self, source: RGB, edited: RGB, instruction: str) -> Verdict:
        return super().judge(source, source, instruction)


class ScribblesOnEdits(HonestJudge):
    def judge(self, source: RGB, edited: RGB, instruction: str) -> Verdict:
        edited[0] = 0
        return super().judge(source, edited, instruction)


class ManyNames(HonestJudge):
    def judge(self, source: RGB, edited: RGB, instruction: str) -> Verdict:
        return replace(super().judge(source, edited, instruction), judge_id=f"judge@{id(self)}")


class Moody(HonestJudge):
    """Marks what comes later lower."""

    def __init__(self) -> None:
        self._left = 10.0

    def judge(self, source: RGB, edited: RGB, instruction: str) -> Verdict:
        self._left /= 2
        return replace(super().judge(source, edited, instruction), scores=Scores(self._left, 5.0))


class NotesNoJSON(HonestJudge):
    def judge(self, source: RGB, edited: RGB, instruction: str) -> Verdict:
        return replace(super().judge(source, edited, instruction), notes={"marks": (1, 2)})


def ask(judge: Judge, source: RGB, edited: RGB, instruction: str) -> Verdict:
    return judge.judge(source, edited, instruction)


@pytest.mark.parametrize(
    ("broken", "promise", "arguments"),
    [
        (Eleven, "a_verdict_has_two_scores_from_0_to_10_and_names_its_judge", ()),
        (Nothing, "a_verdict_has_two_scores_from_0_to_10_and_names_its_judge", ()),
        (Anonymous, "a_verdict_has_two_scores_from_0_to_10_and_names_its_judge", ()),
        (Choosy, "any_text_gives_a_verdict_or_a_judge_error", ("ü",)),
        (SizeBlind, "pictures_of_two_sizes_are_a_judge_error", ()),
        (ScribblesOnEdits, "pictures_may_be_read_only_and_survive", (ask,)),
        (ManyNames, "another_instance_is_the_same_judge", ()),
        (Moody, "many_at_once_are_graded_as_one_by_one", (1,)),
        (HonestJudge, "silence_is_a_timeout", (ask,)),
        (HonestJudge, "an_answer_that_is_no_verdict_is_a_judge_error_and_no_number", (ask,)),
        (NotesNoJSON, "name_revision_settings_and_notes_can_be_kept_as_json", ()),
    ],
)
def test_a_broken_promise_of_a_judge_is_found(
    broken: type[Judge], promise: str, arguments: tuple[Any, ...]
) -> None:
    with pytest.raises((AssertionError, ValueError, pytest.fail.Exception)):
        getattr(JudgeKit(broken), f"test_{promise}")(*arguments)


class Wide(RewardTerm):
    name = "wide"

    def __call__(self, graded: Graded) -> float:
        return graded.after.semantic / 9.99


class Boundless(Wide):
    bounds = (0.0, float("inf"))


class Trusting(RewardTerm):
    """Trusts what the thinker said to lie in [0, 10]."""

    name = "trusting"

    def __call__(self, graded: Graded) -> float:
        return graded.critique.scores.semantic / 10


class Counts(RewardTerm):
    name = "counts"
    calls = 0

    def __call__(self, graded: Graded) -> float:
        self.calls += 1
        return 1 / self.calls


class Nameless(Trusting):
    name = ""

    def __call__(self, graded: Graded) -> float:
        return float("nan")


class TermKit(RewardTermContract):
    def __init__(self, make: Callable[[], RewardTerm]) -> None:
        self._make = make

    def make(self) -> RewardTerm:
        return self._make()


@pytest.mark.parametrize(
    ("broken", "promise", "arguments"),
    [
        (Boundless, "its_bounds_are_two_finite_numbers_in_order", ()),
        (Wide, "every_value_is_finite_and_within_its_bounds", ()),
        (Nameless, "every_value_is_finite_and_within_its_bounds", ()),
        (Trusting, "scores_that_only_the_compat_protocol_lets_through_keep_it_within_bounds", (11.0,)),
        (Counts, "it_depends_on_the_turn_alone_and_leaves_it_as_it_was", ()),
        (Nameless, "it_has_a_name_and_the_rubric_weighs_it_by_it", ()),
    ],
)
def test_a_broken_promise_of_a_reward_term_is_found(
    broken: type[RewardTerm], promise: str, arguments: tuple[Any, ...]
) -> None:
    with pytest.raises(AssertionError):
        getattr(TermKit(broken), f"test_{promise}")(*arguments)
