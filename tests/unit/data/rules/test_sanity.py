"""What may not be learned, one fault at a time."""

from __future__ import annotations

import msgspec
import pytest
from trajectory_files import trajectory, with_expert

from thinkedit.data.rules.fates import Fault
from thinkedit.data.rules.sanity import reply
from thinkedit.data.rules.unroll import Sample, unrolled
from thinkedit.envs.protocol import Protocol
from thinkedit.types import Critique, Scores

PROTOCOL = Protocol()


def looked_at(sample: Sample) -> str | Fault:
    return reply(sample, PROTOCOL, poor_at=3.0, perfect_at=9.5)


def refine(marks: tuple[float, float] = (4, 6), answer: str | None = None, **expert: object) -> Sample:
    sample, _ = unrolled(trajectory(marks, (9, 9)))
    return sample._replace(step=with_expert(sample.step, **expert), answer=answer or sample.answer)


def stop(marks: tuple[float, float] = (9, 8), **expert: object) -> Sample:
    _, sample = unrolled(trajectory((1, 1), marks))
    return sample._replace(step=with_expert(sample.step, **expert))


def test_a_refinement_teaches_reason_scores_and_the_next_prompt() -> None:
    said = looked_at(refine((4, 6.04)))
    assert PROTOCOL.parse(str(said)) == Critique(
        "what I see in edit 0", Scores(4, 6), "paint the fence white, attempt 1"
    )  # scores to one decimal: 6.04 is 6


def test_a_stop_repeats_the_prompt() -> None:
    sample = stop()
    said = PROTOCOL.parse(str(looked_at(sample)), sample.step.prompt)
    assert isinstance(said, Critique)
    assert said.answer == sample.step.prompt


def test_without_an_expert_nothing_is_learned() -> None:
    sample = refine()
    bare = msgspec.structs.replace(sample.step, expert=None)
    assert looked_at(sample._replace(step=bare)) == Fault.NO_EXPERT


def test_no_stop_where_the_expert_wanted_more() -> None:
    assert looked_at(stop(stop=False)) == Fault.NOT_FINISHED


@pytest.mark.parametrize("reason", ["", " \n"])
def test_reasoning_must_say_something(reason: str) -> None:
    assert looked_at(refine(reason=reason)) == Fault.NO_REASON
    assert looked_at(stop(reason=reason)) == Fault.NO_REASON


@pytest.mark.parametrize(("marks", "fault"), [((3, 10), True), ((10, 3), True), ((3.1, 3.1), False)])
def test_an_expert_may_not_accept_what_the_scorer_calls_a_failure(
    marks: tuple[float, float], fault: bool
) -> None:
    assert (looked_at(stop(marks)) == Fault.SATISFIED_WITH_POOR) == fault


@pytest.mark.parametrize(("marks", "fault"), [((9.5, 9.5), True), ((9.5, 9.4), False)])
def test_an_expert_may_not_refine_what_the_scorer_calls_perfect(
    marks: tuple[float, float], fault: bool
) -> None:
    assert (looked_at(refine(marks)) == Fault.UNSATISFIED_WITH_PERFECT) == fault


def test_no_refinement_after_an_accepted_edit() -> None:
    assert looked_at(refine(stop=True)) == Fault.STOP_IGNORED


def test_the_next_edit_must_come_from_the_experts_prompt() -> None:
    assert looked_at(refine(next_prompt="another one")) == Fault.OTHER_PROMPT
    assert not isinstance(looked_at(refine(next_prompt=" paint the fence white, attempt 1 ")), Fault)


def test_a_refinement_must_differ_from_the_prompt() -> None:
    same = " paint the fence white "
    assert looked_at(refine(answer=same, next_prompt=same)) == Fault.REPEATS


@pytest.mark.parametrize("answer", ["x" * 2001, "{next_prompt}", "..."])
def test_what_no_reply_can_say_is_left_out(answer: str) -> None:
    assert looked_at(refine(answer=answer, next_prompt=answer)) == Fault.UNSAYABLE


@pytest.mark.parametrize(
    "token", ["<image>", "<|im_end|>", "<|vision_start|>", "<|image_pad|>", "</think>", "<Answer>", "[INST]"]
)
def test_control_tokens_are_left_out(token: str) -> None:
    text = f"paint {token} it"
    assert looked_at(refine(reason=text)) == Fault.CONTROL_TOKEN
    assert looked_at(stop(reason=text)) == Fault.CONTROL_TOKEN
    assert looked_at(refine(answer=text, next_prompt=text)) == Fault.CONTROL_TOKEN
    repeated = stop()
    step = msgspec.structs.replace(repeated.step, prompt=text)  # as the user worded it
    assert looked_at(repeated._replace(step=step, answer=text)) == Fault.CONTROL_TOKEN


@pytest.mark.parametrize("text", ["a < b", "the <b>bold</b> sign", "an image of 5 > 3"])
def test_brackets_alone_are_no_tokens(text: str) -> None:
    assert not isinstance(looked_at(refine(reason=text)), Fault)
