"""The reply grammar, case by case, and what a user's text can and can't do to a prompt."""

import numpy as np
import pytest

from thinkedit.configs.schema import ProtocolConfig
from thinkedit.envs.protocol import Protocol, visible
from thinkedit.errors import UnknownName
from thinkedit.types import Critique, Observation, ParseError, Scores

GOOD = '<think>dull</think>\n<score>{"semantic": 3, "quality": 6.5}</score>\n<answer>paint it</answer>'
STRICT, COMPAT = Protocol(), Protocol(ProtocolConfig(compat=True))


def with_score(text: str) -> str:
    return GOOD.replace('{"semantic": 3, "quality": 6.5}', text)


def with_answer(text: str) -> str:
    return GOOD.replace("paint it", text)


def observation(instruction: str, prompt: str) -> Observation:
    image = np.zeros((4, 6, 3), np.uint8)
    return Observation(
        source=image, edited=image + 1, instruction=instruction, prompt=prompt, turn=0, turns_left=2
    )


def test_a_well_formed_reply_becomes_a_critique() -> None:
    assert STRICT.parse(GOOD) == Critique("dull", Scores(3.0, 6.5), "paint it")


def test_white_space_around_blocks_is_free_and_inside_the_answer_is_kept() -> None:
    score = '<score> {"quality":6.5 , "semantic" : 3}\n</score>'
    reply = f"\n\t <think>a</think>   {score}\u2003<answer>  b /  c \n d </answer>\n"
    assert STRICT.parse(reply) == Critique("a", Scores(3.0, 6.5), "b /  c \n d")


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        ("", ParseError.MISSING_THINK),
        ("no tags at all", ParseError.MISSING_THINK),
        ("<think>cut off", ParseError.MISSING_THINK),
        (GOOD.replace("</think>", ""), ParseError.MISSING_THINK),
        (GOOD.replace("think>", "THINK>"), ParseError.MISSING_THINK),
        (GOOD.replace("<score>", "<scores>"), ParseError.MISSING_SCORE),
        (GOOD.removesuffix("</answer>"), ParseError.MISSING_ANSWER),
        (GOOD + GOOD, ParseError.DUPLICATE),
        (GOOD.replace("dull", "dull <answer> dull"), ParseError.DUPLICATE),
        ("<score>{}</score><think>a</think><answer>b</answer>", ParseError.ORDER),
        ("<think>a<score></think>{}</score><answer>b</answer>", ParseError.ORDER),
        ("Sure! " + GOOD, ParseError.EXTRA_TEXT),
        (GOOD + "<|im_end|>", ParseError.EXTRA_TEXT),
        (GOOD.replace("\n", " then ", 1), ParseError.EXTRA_TEXT),
        (GOOD.replace("dull", " \n"), ParseError.THINK_EMPTY),
        ("\ud800" + GOOD, ParseError.NOT_UNICODE),
    ],
)
def test_a_broken_frame_is_refused_with_its_code(reply: str, error: ParseError) -> None:
    assert STRICT.parse(reply) is error


@pytest.mark.parametrize(
    ("score", "error"),
    [
        ("", ParseError.SCORE_JSON),
        ("[3, 6]", ParseError.SCORE_JSON),
        ("{'semantic': 3, 'quality': 6}", ParseError.SCORE_JSON),
        ('```json\n{"semantic": 3, "quality": 6}\n```', ParseError.SCORE_JSON),
        ('{"semantic": 3, "quality": 6,}', ParseError.SCORE_JSON),
        ("[" * 100_000, ParseError.SCORE_JSON),
        ("{}", ParseError.SCORE_KEY),
        ('{"semantic": 3}', ParseError.SCORE_KEY),
        ('{"semantic": 3, "quality": 6, "style": 1}', ParseError.SCORE_KEY),
        ('{"semantic": 3, "quality": 6, "quality": 7}', ParseError.SCORE_KEY),
        ('{"semantic": "3", "quality": 6}', ParseError.SCORE_TYPE),
        ('{"semantic": true, "quality": 6}', ParseError.SCORE_TYPE),
        ('{"semantic": null, "quality": 6}', ParseError.SCORE_TYPE),
        ('{"semantic": [3], "quality": 6}', ParseError.SCORE_TYPE),
        ('{"semantic": -0.1, "quality": 6}', ParseError.SCORE_RANGE),
        ('{"semantic": 10.01, "quality": 6}', ParseError.SCORE_RANGE),
        ('{"semantic": NaN, "quality": 6}', ParseError.SCORE_RANGE),
        ('{"semantic": 3, "quality": Infinity}', ParseError.SCORE_RANGE),
        ('{"semantic": 1e999, "quality": 6}', ParseError.SCORE_RANGE),
        ('{"semantic": ' + "9" * 5000 + ', "quality": 6}', ParseError.SCORE_RANGE),
    ],
)
def test_a_broken_score_is_refused_with_its_code(score: str, error: ParseError) -> None:
    assert STRICT.parse(with_score(score)) is error


def test_the_ends_of_the_scale_are_in_range() -> None:
    parsed = STRICT.parse(with_score('{"semantic": -0, "quality": 10.0}'))
    assert isinstance(parsed, Critique)
    assert str(parsed.scores) == "Scores(semantic=0.0, quality=10.0)"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("", ParseError.ANSWER_EMPTY),
        (" \n\t ", ParseError.ANSWER_EMPTY),
        ("\u200b\u200b", ParseError.ANSWER_EMPTY),
        ("x" * 2001, ParseError.ANSWER_TOO_LONG),
        ("{prompt}", ParseError.ANSWER_PLACEHOLDER),
        ("improve {rewritten_prompt}", ParseError.ANSWER_PLACEHOLDER),
        ("[Improved Prompt]", ParseError.ANSWER_PLACEHOLDER),
        ("either the improved prompt, or the current prompt repeated exactly", ParseError.ANSWER_PLACEHOLDER),
        ("...", ParseError.ANSWER_PLACEHOLDER),
        ("paint it<|im_end|>", ParseError.SPECIAL_TOKEN),
        ("<image> paint it", ParseError.SPECIAL_TOKEN),
        ("<|vision_start|><|image_pad|><|vision_end|>", ParseError.SPECIAL_TOKEN),
        ("paint it</s>", ParseError.SPECIAL_TOKEN),
    ],
)
def test_a_useless_answer_is_refused_with_its_code(answer: str, error: ParseError) -> None:
    assert STRICT.parse(with_answer(answer)) is error


@pytest.mark.parametrize(
    "answer", ["x" * 2000, "a < b > c", "{red} | [blue]", "描く🎨", "prompt the painter"]
)
def test_an_unusual_answer_is_taken_as_it_stands(answer: str) -> None:
    parsed = STRICT.parse(with_answer(answer))
    assert isinstance(parsed, Critique)
    assert parsed.answer == answer


@pytest.mark.parametrize("current", ["<image> make it red", "y" * 3000, "{prompt}", "a</answer>b <|im_end|>"])
def test_repeating_the_prompt_as_it_was_shown_is_always_legal(current: str) -> None:
    shown = visible(current)
    parsed = STRICT.parse(with_answer(shown), current)
    assert isinstance(parsed, Critique)
    assert parsed.answer == shown
    assert STRICT.repeats(parsed.answer, current)
    assert not STRICT.repeats("something else", current)


def test_what_is_a_prompt_in_one_state_is_an_echo_in_another() -> None:
    assert isinstance(STRICT.parse(with_answer("{prompt}"), "{prompt}"), Critique)
    assert STRICT.parse(with_answer("{prompt}"), "paint it") is ParseError.ANSWER_PLACEHOLDER


@pytest.mark.parametrize(
    "reply",
    [
        "junk " + GOOD + " junk",
        GOOD + GOOD,
        with_score('{"semantic": 50, "quality": -3}'),
        with_score('{"semantic": true, "quality": false}'),
        with_score('{"semantic": NaN, "quality": 1}'),
        with_score('{"semantic": 1, "quality": 2, "more": 3}'),
        with_answer(""),
        GOOD.replace("<think>", "< think >"),
        GOOD.replace("think>", "THINK>").replace("answer>", "Answer>"),
    ],
)
def test_compat_accepts_what_the_reference_accepts(reply: str) -> None:
    assert isinstance(COMPAT.parse(reply), Critique)
    assert isinstance(STRICT.parse(reply), ParseError)


@pytest.mark.parametrize(
    "reply",
    [
        with_score("[3, 6]"),
        with_score("{'semantic': 3, 'quality': 6}"),
        with_score('```json\n{"semantic": 3, "quality": 6}\n```'),
        with_score('{"semantic": "3", "quality": "6"}'),
        with_score('{"semantic": 3}'),
        with_score("{}"),
        GOOD.replace("score>", "SCORE>"),
        GOOD.upper(),
        GOOD.removesuffix("</answer>"),
        "<answer>b</answer>" + GOOD.replace("<answer>paint it</answer>", ""),
    ],
)
def test_compat_refuses_what_the_reference_refuses(reply: str) -> None:
    assert isinstance(COMPAT.parse(reply), ParseError)


def test_compat_deletes_space_at_brackets_and_slashes_and_takes_the_first_block() -> None:
    parsed = COMPAT.parse(with_answer("black / white") + "<answer>second</answer>")
    assert isinstance(parsed, Critique)
    assert parsed.answer == "black/white"


@pytest.mark.parametrize("protocol", [STRICT, COMPAT])
@pytest.mark.parametrize("piece", ["<think>", " ", "<", "</answer>", "<score>", '{"semantic":', "\u200b"])
def test_a_megabyte_of_anything_is_read_in_no_time(protocol: Protocol, piece: str) -> None:
    """A quadratic parser would not end within the test's time limit."""
    assert isinstance(protocol.parse(piece * (1_000_000 // len(piece))), ParseError)


@pytest.mark.parametrize("template", ["full", "brief"])
def test_user_text_is_put_in_once_and_can_not_act_as_a_token(template: str) -> None:
    protocol = Protocol(ProtocolConfig(template=template))
    text = protocol.render_text(
        observation("{prompt} {threshold} <image> <|im_end|>", "</answer> {instruction}")
    )
    assert "{prompt} {threshold} ‹image› ‹|im_end|›" in text
    assert "‹/answer› {instruction}" in text
    assert "<image>" not in text
    assert "<|im_end|>" not in text


def test_text_that_hides_a_token_within_a_token_is_shown_harmless() -> None:
    for nested in ("<|a<s>|>", "<<|im_end|>|im_end|>", "<im<image>age>", "<|a<|b|>c|>"):
        assert visible(visible(nested)) == visible(nested)
        assert STRICT.parse(with_answer(visible(nested))) is not ParseError.SPECIAL_TOKEN


def test_the_full_template_names_both_texts_and_the_threshold() -> None:
    text = Protocol(accept_at=7.5).render_text(observation("make the cat blue", "paint the cat blue"))
    assert "instruction: make the cat blue\ncurrent prompt: paint the cat blue" in text
    assert "at least 7.5" in text


def test_the_brief_template_says_the_two_texts_only() -> None:
    protocol = Protocol(ProtocolConfig(template="brief"))
    assert protocol.render_text(observation("a", "b")) == "instruction: a\nprompt: b"


def test_a_message_has_two_image_slots_before_the_text_and_images_to_fill_them() -> None:
    seen = observation("a", "b")
    [message] = STRICT.messages(seen)
    assert message["role"] == "user"
    assert [part["type"] for part in message["content"]] == ["image", "image", "text"]
    assert [
        image is kept for image, kept in zip(STRICT.images(seen), (seen.source, seen.edited), strict=True)
    ]
    assert STRICT.images(seen)[1].max() == 1


def test_a_critique_that_no_reply_can_say_is_refused() -> None:
    critique = Critique("why", Scores(3, 6), "")
    with pytest.raises(ValueError, match="answer_empty"):
        STRICT.format_reply(critique)


def test_an_unknown_template_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownName, match="brief"):
        Protocol(ProtocolConfig(template="breif"))
