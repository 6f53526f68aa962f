"""What can become of a trajectory or of a sample. Each name is a line of the report."""

from __future__ import annotations

from enum import StrEnum


class Fate(StrEnum):
    """Why a trajectory is in no training set; RL and SFT: it is in that one."""

    RL = "rl"
    SFT = "sft"
    UNGRADED = "ungraded"  # nobody could grade the first edit
    SINGLE_EDIT = "single_edit"  # no later edit to compare the first one with
    NOT_IMPROVED = "not_improved"  # every later edit is worse than the first
    BENCHMARK = "benchmark"  # the source looks like an excluded image
    DUPLICATE = "duplicate"  # another trajectory of the same source and instruction is better
    UNBALANCED = "unbalanced"  # its cell of task type and score level is full
    SOURCE_IN_RL = "source_in_rl"  # its source image is in the RL set
    UNSTABLE = "unstable"  # for SFT: scores vary too much and are not all high
    NO_SFT_STEP = "no_sft_step"  # sanity left no sample to learn from
    OVER_QUOTA = "over_quota"  # the set is full


class Fault(StrEnum):
    """Why a sample of a kept trajectory is left out of SFT."""

    NO_EXPERT = "no_expert"  # no expert looked at this edit
    NOT_FINISHED = "not_finished"  # the last edit kept, and the expert wanted more: no stop sample
    NO_REASON = "no_reason"  # the reasoning is empty
    CONTROL_TOKEN = "control_token"  # reasoning or answer hold a token of the chat model or a protocol tag
    REPEATS = "repeats"  # a refinement that repeats the prompt
    OTHER_PROMPT = "other_prompt"  # the next edit was made from another prompt than the expert's
    STOP_IGNORED = "stop_ignored"  # the expert was satisfied and yet another edit was made
    SATISFIED_WITH_POOR = "satisfied_with_poor"  # the expert accepts what the scorer calls a failure
    UNSATISFIED_WITH_PERFECT = "unsatisfied_with_perfect"  # and the reverse
    UNSAYABLE = "unsayable"  # no well-formed reply says it (too long, a template's slot, ...)
