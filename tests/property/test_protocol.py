"""The parser on any text at all."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkedit.configs.schema import ProtocolConfig
from thinkedit.envs.protocol import Protocol, visible
from thinkedit.types import SCORE_MAX, SCORE_MIN, Critique, ParseError, Scores

PIECES = (
    *(
        "<think>",
        "</think>",
        "<score>",
        "</score>",
        "<answer>",
        "</answer>",
        "<THINK>",
        "<|im_end|>",
        "<image>",
    ),
    *('{"semantic": 3, "quality": 6}', '{"semantic": 1e999, "quality": 6}', '{"semantic"', "NaN", "true"),
    *(
        "[" * 50,
        "{prompt}",
        " ",
        "\n",
        "paint it",
        "\x00",
        "\ud800",
        "\U0001f3a8",
        "\u200b",
        "\ufeff",
        "10" * 40,
    ),
)
STRICT, COMPAT = Protocol(), Protocol(ProtocolConfig(compat=True))

# All code points, lone surrogates among them.
any_text = st.text(st.characters(codec=None, exclude_categories=()))
near_replies = st.lists(st.sampled_from(PIECES) | any_text, max_size=14).map("".join)
scores = st.builds(Scores, *[st.floats(SCORE_MIN, SCORE_MAX)] * 2)


def check(reply: str, current: str | None = None) -> None:
    strict, compat = STRICT.parse(reply, current), COMPAT.parse(reply, current)
    for parsed in (strict, compat):
        assert isinstance(parsed, Critique | ParseError)
    if isinstance(strict, Critique):
        assert strict.scores.lowest >= SCORE_MIN
        assert max(strict.scores.semantic, strict.scores.quality) <= SCORE_MAX
        assert strict.answer == strict.answer.strip() != ""
        assert strict.answer in reply
        assert isinstance(compat, Critique)  # strict is the narrower of the two


@given(near_replies | any_text, st.none() | any_text)
def test_the_parser_never_raises(reply: str, current: str | None) -> None:
    check(reply, current)


@given(any_text, any_text)
def test_any_answer_between_good_blocks_is_taken_whole_or_refused(think: str, answer: str) -> None:
    reply = f'<think>{think}</think><score>{{"semantic": 3, "quality": 6}}</score><answer>{answer}</answer>'
    parsed = STRICT.parse(reply)
    if isinstance(parsed, Critique):
        assert (parsed.think, parsed.answer) == (think.strip(), answer.strip())


@given(any_text, scores, any_text)
def test_what_is_formatted_is_parsed_back(think: str, marks: Scores, answer: str) -> None:
    critique = Critique(think.strip(), marks, answer.strip())
    try:
        reply = STRICT.format_reply(critique)
    except ValueError:
        return
    assert STRICT.parse(reply) == critique


@given(any_text | near_replies)
def test_a_prompt_shown_to_the_thinker_can_always_be_repeated(prompt: str) -> None:
    shown = visible(prompt).strip()
    if any(not char.isspace() for char in shown):
        assert STRICT.repeats(shown, prompt)
        reply = f'<think>fine</think><score>{{"semantic": 9, "quality": 9}}</score><answer>{shown}</answer>'
        assert isinstance(STRICT.parse(reply, prompt), Critique)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_million_random_strings_never_raise() -> None:
    rng = random.Random(0)
    for _ in range(1_000_000):
        parts = rng.choices(PIECES, k=rng.randrange(10))
        parts.append("".join(chr(rng.randrange(0x110000)) for _ in range(rng.randrange(6))))
        rng.shuffle(parts)
        check("".join(parts))
