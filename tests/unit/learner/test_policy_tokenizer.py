"""The tiny thinker's tokenizer: whole words for the world, bytes for the rest of Unicode."""

from __future__ import annotations

import random
import re

from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from thinkedit.configs.load import load_config
from thinkedit.data import looking
from thinkedit.envs.world.experts import corpus
from thinkedit.envs.world.instructions import EXTREMES, KEEP_CLAUSES, OPERATIONS, STYLE_CLAUSES, VERBS
from thinkedit.envs.world.scene import CELLS, COLOURS, SHAPES, SIZES
from thinkedit.learner.policy import shipped
from thinkedit.learner.policy import tokenizer as tokens

TOKENIZER = tokens.build_tokenizer(looking.vocabulary())


def encode(text: str) -> list[int]:
    return list(TOKENIZER(text, add_special_tokens=False)["input_ids"])


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_unicode_text_survives_a_round_trip(text: str) -> None:
    assert TOKENIZER.decode(encode(text)) == text


@given(
    st.lists(st.sampled_from([*tokens.SPECIAL, *tokens.REPLY_TAGS, "red", " star", "\n", "é"]), max_size=12)
)
def test_tags_and_control_tokens_amid_text_survive_a_round_trip(parts: list[str]) -> None:
    assert TOKENIZER.decode(encode("".join(parts))) == "".join(parts)


def test_every_word_of_the_world_is_one_token() -> None:
    verbs = [verb for operation in OPERATIONS for verb in VERBS[operation]]
    clauses = " ".join((*KEEP_CLAUSES, *STYLE_CLAUSES)).split()
    words = {*CELLS, *COLOURS, *SHAPES, *SIZES, *EXTREMES, *verbs, *clauses, *"the odd one out shape".split()}
    assert [word for word in sorted(words) if len(encode(" " + word)) != 1] == []


def test_the_base_that_comes_with_the_package_knows_every_word_that_experts_say() -> None:
    base = AutoTokenizer.from_pretrained(shipped.BASE)
    assert base.get_vocab() == TOKENIZER.get_vocab()
    longest = load_config("demo").policy.max_reply_tokens
    for text in corpus(random.Random(1), 200):
        ids = base(text, add_special_tokens=False)["input_ids"]
        assert len(ids) <= longest
        letters = [token for token in base.convert_ids_to_tokens(ids) if re.fullmatch("[a-zA-Z]", token)]
        assert not letters, text


def test_a_number_is_one_token_up_to_ten() -> None:
    assert [n for n in range(11) if len(encode(f" {n}")) != 1] == []


def test_reply_tags_are_one_token_each_and_stay_in_the_text() -> None:
    for tag in tokens.REPLY_TAGS:
        (token,) = encode(tag)
        assert TOKENIZER.decode([token], skip_special_tokens=True) == tag


def test_control_tokens_are_one_token_each_and_leave_the_text() -> None:
    for special in tokens.SPECIAL:
        (token,) = encode(special)
        assert TOKENIZER.decode([token], skip_special_tokens=True) == ""


def test_ids_have_no_gaps() -> None:
    assert sorted(TOKENIZER.get_vocab().values()) == list(range(len(TOKENIZER)))


def test_words_beyond_the_limit_fall_apart_into_bytes() -> None:
    small = tokens.build_tokenizer(["red red red green"], max_words=1)
    assert len(small(" green")["input_ids"]) == len(" green")
    assert len(small(" red")["input_ids"]) == 1


def test_template_writes_turns_and_pictures_as_qwen3_vl_does() -> None:
    text = TOKENIZER.apply_chat_template(
        [
            {"role": "system", "content": "be kind"},
            {
                "role": "user",
                "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "hi"}],
            },
            {"role": "assistant", "content": "yes"},
            {"role": "user", "content": "and?"},
        ],
        tokenize=False,
        add_generation_prompt=True,
    )
    picture = "<|vision_start|><|image_pad|><|vision_end|>"
    assert text == (
        "<|im_start|>system\nbe kind<|im_end|>\n"
        f"<|im_start|>user\n{picture}{picture}hi<|im_end|>\n"
        "<|im_start|>assistant\nyes<|im_end|>\n"
        "<|im_start|>user\nand?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_pretraining_answers_hold_no_byte_pieces() -> None:
    for _, sample in zip(range(50), looking.looking(1), strict=False):
        for text in sum(sample.rounds, ()):
            words = re.findall(r"[\w-]+", text)
            pieces = TOKENIZER.convert_ids_to_tokens(encode(text))
            assert sum(piece.strip("Ġ")[:1].isalpha() for piece in pieces) == len(words)
