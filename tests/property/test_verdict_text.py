"""Whatever a judge replies: two marks in range that it wrote, or a ValueError."""

import json
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from thinkedit.rewards.judges.verdict_text import read_marks

tops = st.sampled_from([10, 25])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
scraps = st.sampled_from(
    [
        '{"score": [',
        '"score":',
        "[",
        "]",
        "{",
        "}",
        "7",
        "26",
        ",",
        '"',
        "```json\n",
        "\n```",
        "<think>",
        "NaN",
    ]
)


@given(tops, st.text() | st.lists(scraps | st.text(max_size=5), max_size=12).map("".join))
def test_any_text_gives_two_marks_in_range_or_a_value_error(top: int, text: str) -> None:
    with suppress(ValueError):
        first, second = read_marks(text, top)
        assert 0 <= first <= top
        assert 0 <= second <= top


@given(tops, values)
def test_any_json_under_score_is_two_marks_or_refused(top: int, score: object) -> None:
    with suppress(ValueError):
        found = read_marks(json.dumps({"reasoning": "", "score": score}), top)
        assert isinstance(score, list)
        assert found == tuple(float(mark) for mark in score)
        assert not any(isinstance(mark, bool) for mark in score)


@given(
    tops.flatmap(lambda top: st.tuples(st.just(top), *[st.integers(0, top)] * 2)),
    st.text(max_size=200),
    st.sampled_from(["{}", "```json\n{}\n```", "<think>{{1}}</think>{}"]),
)
def test_a_well_formed_reply_is_read_whatever_its_reasoning_says(
    case: tuple[int, int, int], reasoning: str, wrapping: str
) -> None:
    top, first, second = case
    reply = json.dumps({"reasoning": reasoning, "score": [first, second]})
    assert read_marks(wrapping.replace("{{1}}", "{1}").replace("{}", reply, 1), top) == (first, second)


@given(tops, st.integers(1, 10**6), st.booleans())
def test_a_mark_outside_the_scale_is_never_clipped(top: int, beyond: int, below: bool) -> None:
    mark = -beyond if below else top + beyond
    for reply in (
        f'{{"score": [{mark}, 1]}}',
        f'{{"score": ["{mark}", 1]}}',
        f'broken " "score": [1, {mark}]',
    ):
        try:
            read_marks(reply, top)
        except ValueError:
            continue
        raise AssertionError(reply)
