"""Every way in which a reply may look like marks and not be, or not look like them and be."""

import pytest

from thinkedit.evals.benchmarks.replies import final_score, json_numbers, named_numbers

NAMES = ("Prompt Compliance", "Visual Naturalness", "Physical & Detail Integrity")


def named(text: str) -> list[float]:
    found = named_numbers(text, NAMES, 1, 5)
    return [found[name] for name in NAMES]


def lines(*numbers: str) -> str:
    return "\n".join(f"{name}: {number}" for name, number in zip(NAMES, numbers, strict=True))


@pytest.mark.parametrize(
    "text",
    [
        lines("4", "3", "5"),
        "Brief reasoning: 2 of the 3 cats: 1\n" + lines("4", "3", "5"),
        "**Prompt Compliance**: 4\n- **Visual Naturalness:** 3/5\n3. Physical and Detail Integrity: 5.",
        "<think>Prompt Compliance: 1</think>\n" + lines("4", "3", "5"),
        "### Scores\n" + lines(" 4 ", "[3]", "5 / 5").replace(":", "："),
        lines("4", "3", "5") + "\n" + lines("4", "3", "5"),
    ],
)
def test_named_numbers_are_read_by_name(text: str) -> None:
    assert named(text) == [4, 3, 5]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (lines("4", "3", "5").rsplit("\n", 1)[0], "no number for 'Physical & Detail Integrity'"),
        (lines("4.5", "3", "5"), "'4.5' is no whole number"),
        (lines("4", "0", "5"), r"0 is outside \[1, 5\]"),
        (lines("4", "3", "6"), r"6 is outside \[1, 5\]"),
        (lines("4", "3", "5/10"), "is not out of 5"),
        (lines("1-5", "3", "5"), "no whole number"),
        (lines("4", "3", "5") + "\nVisual Naturalness: 2", "two different numbers"),
        ("<think>\n" + lines("4", "3", "5"), "ended while it was thinking"),
        ("", "no number for"),
    ],
)
def test_what_is_not_plainly_a_mark_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        named(text)


@pytest.mark.parametrize(
    "text",
    [
        "Final Score: 4",
        "All kept.\n**Final Score**: **4**",
        "### Final Score\n4",
        "Final Score (1-5): 4/5.",
        "The final score is 4",
        "Final Score: 4\nFinal Score: 4",
    ],
)
def test_a_final_score_is_read_where_it_is_declared(text: str) -> None:
    assert final_score(text, "R", 1, 5) == {"R": 4}


@pytest.mark.parametrize(
    "text",
    [
        "Final Score: 4.5",  # the official script makes 4 of it
        "Final Score: 1-5",  # and 1 of this
        "Final Score: 4, 5",  # and two marks of this, which then stand in two columns
        "Final Score: 4\nFinal Score: 2",
        "Final Score: 0",
        "I would give a final score: 3 or so",  # prose, not a declaration
        "4",
        "Final Score: good",
    ],
)
def test_no_final_score_is_made_up(text: str) -> None:
    with pytest.raises(ValueError, match=r"(?i)final score"):
        final_score(text, "R", 1, 5)


def dual(text: str) -> dict[str, float]:
    return json_numbers(text, {"instruction_score": "IF", "knowledge_score": "KP"}, 1, 5)


@pytest.mark.parametrize(
    "text",
    [
        '{"instruction_score": 4, "knowledge_score": 2}',
        '```json\n{"reasoning": "1. see {it}", "instruction_score": "4", "knowledge_score": 2.0}\n```',
        # Unquoted numbered reasoning: the official fallback would take the list number 1.
        '{"reasoning": 1. the cat is red, "instruction_score": 4, "knowledge_score": 2}',
        '{"instruction_score": 4,\n "knowledge_score": 2',
    ],
)
def test_json_marks_are_read_by_their_keys(text: str) -> None:
    assert dual(text) == {"IF": 4, "KP": 2}


@pytest.mark.parametrize(
    "text",
    [
        "1. The cat is red. I give it a 4 and a 2.",
        '{"instruction_score": 4}',
        '{"instruction_score": 0, "knowledge_score": 2}',
        '{"instruction_score": 7, "knowledge_score": 2}',
        '{"instruction_score": 4.5, "knowledge_score": 2}',
        '{"instruction_score": true, "knowledge_score": 2}',
        '{"instruction_score": NaN, "knowledge_score": 2}',
        '{"instruction_score": Infinity, "knowledge_score": 2}',
        '{"instruction_score": 4, "knowledge_score": 2} {"instruction_score": 5, "knowledge_score": 2}',
        '{"instruction_score": 1, "instruction_score": 5, "knowledge_score": 2}',  # JSON takes the last
        '{"reasoning": like {"instruction_score": 1}, "instruction_score": 4, "knowledge_score": 2}',
        """{"reasoning": "no 'knowledge_score': 5 for this", "instruction_score": 4}""",
        '{"instruction_score": 4, "knowledge_score": %s}' % ("2" * 310),  # no float is as large
        '{"instruction_score": 4, "knowledge_score": 1e400}',
        "",
    ],
)
def test_the_first_digit_is_never_a_mark(text: str) -> None:
    with pytest.raises(ValueError, match=r"(instruction|knowledge)_score"):
        dual(text)
