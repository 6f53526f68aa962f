"""Samples as the learner gets them: each turn its own reward, nothing from a failed one."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from episodes import play
from PIL import Image

from thinkedit.actors.agent_loop import TurnSample, editor_seed, first_after_score, turn_record
from thinkedit.learner.samples import TurnRecord
from thinkedit.pixels import within_pixels
from thinkedit.types import Outcome


def sample(reward: float | None) -> dict[str, Any]:
    from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics

    made = TurnSample(
        prompt_ids=[1, 2],
        response_ids=[3, 4, 5],
        response_mask=[1, 1, 1],
        response_logprobs=[-0.1, -0.2, -0.3],
        reward_score=0.9,  # what verl would copy from the last turn
        metrics=AgentLoopMetrics(),
        extra_fields={"thinkedit": {"reward": reward}},
    )
    return made.as_dict()


def test_a_turn_keeps_its_own_reward_on_its_last_token() -> None:
    assert sample(0.25)["rm_scores"].tolist() == [0.0, 0.0, 0.25]


def test_a_reward_of_zero_is_a_reward() -> None:
    assert sample(0.0)["response_mask"].tolist() == [1, 1, 1]


def test_a_turn_without_a_reward_is_masked_and_scored_nowhere() -> None:
    row = sample(None)
    assert row["response_mask"].sum() == 0
    assert row["rm_scores"].abs().sum() == 0
    assert torch.equal(row["responses"], torch.tensor([3, 4, 5]))


def test_siblings_share_their_seed_whatever_their_place() -> None:
    assert editor_seed("train/7", 3) == editor_seed("train/7", 3)
    assert editor_seed("train/7", 3) != editor_seed("train/7", 4)
    assert editor_seed("train/7", 3) != editor_seed("train/8", 3)


@pytest.mark.parametrize(("height", "width"), [(96, 96), (40, 90), (2000, 1500)])
def test_pictures_are_brought_within_the_policys_bounds(height: int, width: int) -> None:
    picture = within_pixels(Image.new("RGB", (width, height)), 9216, 1048576)
    assert 9216 <= picture.width * picture.height <= 1048576
    assert picture.width / picture.height == pytest.approx(width / height, rel=0.05)


def test_the_answer_begins_after_the_score() -> None:
    reply = '<think>x</think> <score>{"semantic": 1, "quality": 2}</score> <answer>paint it red</answer>'
    letters = [ord(letter) for letter in reply]  # a tokenizer whose every tag is many tokens
    begins = first_after_score(lambda ids: "".join(map(chr, ids)), letters)
    assert reply[begins:] == " <answer>paint it red</answer>"
    cut = letters[: begins - 1]
    assert first_after_score(lambda ids: "".join(map(chr, ids)), cut) == len(cut)


def test_the_learner_reads_every_turn_of_an_episode() -> None:
    (episode,) = play(1, garbled=0.5)
    records = [
        TurnRecord.from_dict(turn_record(episode, turn, sampling, settled=0.1, answer_from=3))
        for turn, sampling in zip(episode.turns, episode.sampling, strict=True)
    ]
    assert [r.turn for r in records] == list(range(len(episode.turns)))
    assert [r.reward for r in records] == [t.reward.total if t.reward else None for t in episode.turns]
    assert {r.group for r in records} == {episode.group}
    assert {(r.settled, r.answer_from) for r in records} == {(0.1, 3)}


def test_the_learner_counts_flags_of_new_edits_only() -> None:
    (episode,) = play(1, garbled=0.5)
    for turn, sampling in zip(episode.turns, episode.sampling, strict=True):
        assert turn.after is not None
        flagged = replace(turn, after=replace(turn.after, notes={"flags": ["unchanged"]}))
        new = turn.outcome is Outcome.OK and not turn.kept
        assert turn_record(episode, flagged, sampling, settled=0.0, answer_from=0)["flags"] == (
            ["unchanged"] if new else []
        )
        assert turn_record(episode, turn, sampling, settled=0.0, answer_from=0)["flags"] == []
