"""Two marks or a reason why not: what a judge may wrap them in, and what is never guessed."""

import pytest

from thinkedit.rewards.judges.verdict_text import MAX_CHARS, read_marks


@pytest.mark.parametrize(
    "text",
    [
        '{"reasoning": "fine", "score": [8, 6]}',
        '{"score": [8.0, 6], "reasoning": ""}',
        '{"score": ["8", " 6.0 "]}',
        '```json\n{"score": [8, 6]}\n```',
        '```\n{"score": [8, 6]}```',
        'Here it is: {"score": [8, 6]} Glad to help!',
        '<think>{"score": [1, 1]}? No.</think>\n{"score": [8, 6]}',
        "[8, 6]",
        '{"reasoning": "the sign now says "OPEN" in red", "score": [8, 6]}',
        '{"reasoning": "half\ndone", "score": [8, 6],}',
        '{"reasoning": "cut", "score": [8, 6]',
        "{'reasoning': 'single quotes', 'score': [8, 6]}",
        "{“reasoning”: “curly”, “score”: [“8”, “6”]}",
        'Notes {as asked}: {"score": [8, 6]}',
        '{"score": [8, 6]} and again {"score": [8.0, 6.0]}',
        '{"reasoning": "it says \\"score\\": [10, 10]", "score": [8, 6]}',
        'First look: {"score": [9, 9]}? No, it is still red.</think>{"score": [8, 6]}',
        '```json\n{"reasoning": "now "OPEN"", "score": [8, 6],}\n```\n',
    ],
)
def test_two_marks_are_found_in_any_wrapping(text: str) -> None:
    assert read_marks(text) == (8.0, 6.0)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no"),
        ("I'd rather not say.", "no"),
        ("8 and 6", "no"),
        ("{}", "no"),
        ('{"Score": [8, 6]}', "no"),
        ('{"score": [8,', "no"),
        ('{"score": 8}', "not a list"),
        ('{"score": null}', "not a list"),
        ('{"score": {"success": 8, "restraint": 6}}', "not a list"),
        ('{"score": [8]}', "1 items"),
        ('{"score": []}', "0 items"),
        ('{"score": [8, 6, 7]}', "3 items"),
        ('{"reasoning": "a "one"", "score": [8]}', "1 items"),
        ('{"score": [8, 11]}', "outside"),
        ('{"score": [-1, 6]}', "outside"),
        ('{"score": ["8", "10.5"]}', "outside"),
        ('{"score": [8, 1e400]}', "outside"),
        (f'{{"score": [8, {"9" * 500}]}}', "outside"),
        ('{"score": [true, 6]}', "True is not a number"),
        ('{"score": [8, false]}', "False is not a number"),
        ('{"reasoning": "a "one"", "score": [true, 6]}', "not a number"),
        ('{"score": [8, null]}', "not a number"),
        ('{"score": [8, "six"]}', "not a number"),
        ('{"score": [8, "6/10"]}', "not a number"),
        ('{"score": ["8", "٦"]}', "not a number"),
        ('{"score": [8, NaN]}', "not a number"),
        ('{"score": [8, [6]]}', "not a number"),
        ("[8, 11]", "outside"),
        ('{"score": [1, 2], "score": [8, 6]}', "differ"),
        ('{"score": [8, 6]} {"score": [8, 7]}', "differ"),
        (
            '<think>First look: {"score": [9, 9]}? But the star is still red, so',
            "ended while it was thinking",
        ),
        ('Well. <think>{"score": [9, 9]}', "ended while it was thinking"),
        ('{"reasoning": "the sign says \'score\': [10, 10]"}', "no"),
        ('{"reasoning": "the sign says "score": [10, 10] and the star', "goes on"),
        ('{"reasoning": "the sign says "score": [10, 10], and', "goes on"),
        ('{"reasoning": "the sign says {"score": [10, 10]}", "score": [2, 3]}', "differ"),
    ],
)
def test_anything_else_is_unreadable_and_says_why(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_marks(text)


@pytest.mark.parametrize(
    "text", ["{" * 50_000, "[" * 50_000, '{"a":' * 10_000, '"score": [' * 9_000, "x" * (MAX_CHARS + 1)]
)
def test_hostile_replies_are_refused_quickly(text: str) -> None:
    with pytest.raises(ValueError, match=r"no|characters"):
        read_marks(text)


def test_marks_on_another_scale_are_held_to_it() -> None:
    assert read_marks('{"score": [25, 0]}', top=25) == (25.0, 0.0)
    with pytest.raises(ValueError, match=r"26 is outside \[0, 25\]"):
        read_marks('{"score": [26, 0]}', top=25)
