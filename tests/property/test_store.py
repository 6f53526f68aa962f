"""Whatever an episode holds comes back from the store."""

import tempfile

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from same import differences

from thinkedit.actors.store import TrajectoryStore
from thinkedit.types import (
    Critique,
    End,
    Episode,
    Outcome,
    ParseError,
    RewardBreakdown,
    Sampling,
    Scores,
    Task,
    Turn,
    Verdict,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
numbers = st.floats(allow_nan=False)
scores = st.builds(Scores, numbers, numbers)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(texts, json_values, max_size=3)
images = st.builds(
    lambda seed, h, w: np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8),
    st.integers(0, 3),
    st.integers(1, 6),
    st.integers(1, 6),
)
verdicts = st.builds(Verdict, scores=scores, judge_id=texts, prompt_hash=texts, notes=objects)
rewards = st.builds(
    RewardBreakdown,
    total=numbers,
    terms=st.dictionaries(texts, numbers, max_size=3),
    weights=st.dictionaries(texts, numbers, max_size=3),
)
turns = st.builds(
    Turn,
    index=st.integers(0, 99),
    prompt=texts,
    reply=texts,
    critique=st.none() | st.builds(Critique, texts, scores, texts),
    error=st.none() | st.sampled_from(ParseError),
    outcome=st.sampled_from(Outcome),
    before=verdicts,
    after=st.none() | verdicts,
    edited=images,
    reward=st.none() | rewards,
    kept=st.booleans(),
    terminated=st.booleans(),
    truncated=st.booleans(),
    end=st.none() | st.sampled_from(End),
    state_key=texts,
    detail=texts,
)
ids = st.lists(st.integers(0, 2**31 - 1), max_size=5).map(tuple)
samplings = st.builds(
    Sampling,
    prompt_ids=ids,
    token_ids=ids,
    logprobs=st.lists(numbers, max_size=5).map(tuple),
    policy_version=st.integers(0, 2**40),
)
episodes = st.builds(
    Episode,
    uid=texts,
    group=texts,
    task=st.builds(
        Task, uid=texts, source=images, instruction=texts, task_type=texts, split=texts, reference=objects
    ),
    seed=st.integers(-(2**63), 2**63 - 1),
    first_edit=st.none() | images,
    first=st.none() | verdicts,
    turns=st.lists(turns, max_size=3),
    sampling=st.lists(samplings, max_size=3),
    outcome=st.sampled_from(Outcome),
    timings=st.dictionaries(texts, numbers, max_size=3),
    step=st.integers(-1, 2**40),
    tags=objects,
)


@settings(max_examples=60)
@given(st.lists(episodes, max_size=3))
def test_every_field_survives_the_store(played: list[Episode]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with TrajectoryStore(folder, shard_size=2) as store:
            for episode in played:
                store.append(episode)
        back = list(store.read(tokens=True))
        assert [d for a, b in zip(played, back, strict=True) for d in differences(a, b)] == []
