"""Samples that would teach nonsense are left out; the others become the reply to learn."""

from __future__ import annotations

from thinkedit.data.rules.fates import Fault
from thinkedit.data.rules.unroll import Sample
from thinkedit.envs.protocol import Protocol, has_tokens
from thinkedit.types import Critique, Scores


def reply(sample: Sample, protocol: Protocol, *, poor_at: float, perfect_at: float) -> str | Fault:
    """The reply that a sample teaches, or the first thing that is wrong with it.

    Args:
        poor_at: an expert who accepts an edit with a score at or below it contradicts the scorer,
        perfect_at: and so does one who asks for more where both scores are at or above it.
    """
    step, expert, score = sample.step, sample.step.expert, sample.step.score
    assert score is not None, "only graded trajectories are unrolled"
    if expert is None:
        return Fault.NO_EXPERT
    if sample.kind == "stop" and not expert.stop:
        return Fault.NOT_FINISHED
    if not expert.reason.strip():
        return Fault.NO_REASON
    # Learned, it would be spoken: the tokenizer takes it for an image slot or the end of a turn. A stop's
    # answer may repeat one that the user wrote, which the protocol allows and a trainer can't tell apart.
    if has_tokens(expert.reason) or has_tokens(sample.answer):
        return Fault.CONTROL_TOKEN
    if expert.stop and score.lowest <= poor_at:
        return Fault.SATISFIED_WITH_POOR
    if not expert.stop and score.lowest >= perfect_at:
        return Fault.UNSATISFIED_WITH_PERFECT
    if sample.kind == "refine":
        if expert.stop:
            return Fault.STOP_IGNORED
        if expert.next_prompt is not None and expert.next_prompt.strip() != sample.answer.strip():
            return Fault.OTHER_PROMPT
        if protocol.repeats(sample.answer, step.prompt):
            return Fault.REPEATS
    try:
        return said(protocol, expert.reason, score.semantic, score.quality, sample.answer, step.prompt)
    except ValueError:
        return Fault.UNSAYABLE


def said(protocol: Protocol, reason: str, semantic: float, quality: float, answer: str, prompt: str) -> str:
    """The reply that says all this, scores to one decimal as the protocol asks for.

    Raises:
        ValueError: no well-formed reply says it.
    """
    critique = Critique(reason, Scores(round(semantic, 1), round(quality, 1)), answer)
    return protocol.format_reply(critique, prompt)
