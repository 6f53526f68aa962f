"""Every reward is finite and within the bounds that its rubric declares."""

from math import isfinite

from hypothesis import given
from hypothesis import strategies as st

from thinkedit.configs.schema import RewardConfig
from thinkedit.rewards.profiles import PROFILES
from thinkedit.rewards.rubric import Rubric
from thinkedit.rewards.terms import Evidence
from thinkedit.types import Critique, Scores, Verdict

judged = st.builds(Scores, *[st.floats(0, 10)] * 2)
said = judged | st.builds(Scores, *[st.floats()] * 2)  # compat lets any number through
RUBRICS = {profile: Rubric.from_config(RewardConfig(profile=profile)) for profile in PROFILES}
TERMS = RUBRICS["balanced"].terms
rubrics = st.sampled_from(list(RUBRICS.values()))
own = st.builds(
    lambda weights: Rubric({name: TERMS[name] for name in weights}, weights),
    st.dictionaries(
        st.sampled_from(sorted(TERMS)),
        st.floats(-2, 2),
        min_size=1,
    ),
)


def verdict(scores: Scores) -> Verdict:
    return Verdict(scores=scores, judge_id="judge@1", prompt_hash="p")


@given(rubrics | own, said, judged, judged, st.booleans(), st.booleans())
def test_rewards_are_finite_and_in_bounds(
    rubric: Rubric, marks: Scores, before: Scores, after: Scores, kept: bool, malformed: bool
) -> None:
    critique = None if malformed else Critique("why", marks, "prompt")
    result = rubric(Evidence(critique=critique, before=verdict(before), after=verdict(after), kept=kept))
    low, high = rubric.bounds
    assert isfinite(result.total)
    assert low - 1e-9 <= result.total <= high + 1e-9
    assert all(isfinite(value) for value in result.terms.values())


@given(judged, st.lists(judged, min_size=1, max_size=6))
def test_the_papers_edit_terms_telescope_over_an_episode(first: Scores, later: list[Scores]) -> None:
    gains = [
        RUBRICS["paper"](
            Evidence(critique=Critique("why", before, "p"), before=verdict(before), after=verdict(after))
        ).terms["overall"]
        for before, after in zip([first, *later], later, strict=False)
    ]
    assert abs(sum(gains) - (later[-1].overall - first.overall) / 10) < 1e-9


@given(judged, judged, judged)
def test_a_better_edit_never_earns_less(before: Scores, one: Scores, two: Scores) -> None:
    for rubric in RUBRICS.values():
        worse = Scores(min(one.semantic, two.semantic), min(one.quality, two.quality))
        better = Scores(max(one.semantic, two.semantic), max(one.quality, two.quality))
        totals = [
            rubric(
                Evidence(critique=Critique("", before, "p"), before=verdict(before), after=verdict(after))
            ).total
            for after in (worse, better)
        ]
        assert totals[0] <= totals[1] + 1e-9
