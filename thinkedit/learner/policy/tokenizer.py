"""Byte-level tokenizer of the tiny thinker: one token per known word, bytes for anything else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END, VISION_PAD = "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"
IMAGE, VIDEO = "<|image_pad|>", "<|video_pad|>"
SPECIAL = (END_OF_TEXT, TURN_START, TURN_END, VISION_START, VISION_END, VISION_PAD, IMAGE, VIDEO)
"""Qwen's control tokens, dropped by `decode(skip_special_tokens=True)`."""

REPLY_TAGS = ("<think>", "</think>", "<score>", "</score>", "<answer>", "</answer>")
"""One token each, but part of the text: decoding keeps them."""

# Qwen's split, but hyphenated words and whole numbers stay together with the space before them.
SPLIT = r" ?\p{L}+(?:-\p{L}+)*| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s+"

# The form of Qwen3-VL's template for system, user and assistant turns with text, images and
# videos; there is no default system turn and no tool syntax.
CHAT_TEMPLATE = (
    "{%- set seen = namespace(images=0, videos=0) %}"
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.content is string %}{{- message.content }}"
    "{%- else %}{%- for part in message.content %}"
    "{%- if part.type in ('image', 'image_url') or 'image' in part or 'image_url' in part %}"
    "{%- set seen.images = seen.images + 1 %}"
    "{%- if add_vision_id %}{{- 'Picture ' ~ seen.images ~ ': ' }}{%- endif %}"
    "{{- '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{%- elif part.type == 'video' or 'video' in part %}"
    "{%- set seen.videos = seen.videos + 1 %}"
    "{%- if add_vision_id %}{{- 'Video ' ~ seen.videos ~ ': ' }}{%- endif %}"
    "{{- '<|vision_start|><|video_pad|><|vision_end|>' }}"
    "{%- elif 'text' in part %}{{- part.text }}{%- endif %}"
    "{%- endfor %}{%- endif %}"
    "{{- '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


def build_tokenizer(corpus: Iterable[str], max_words: int = 300) -> PreTrainedTokenizerFast:
    """A tokenizer in which each of the corpus's commonest words is one token.

    A word is what `SPLIT` keeps together, so " red" and "red" are two. The vocabulary is the
    256 bytes, the words, `SPECIAL` and `REPLY_TAGS`: any Unicode text survives a round trip,
    and unknown words simply cost one token a byte. Equal corpora give equal tokenizers.

    Args:
        corpus: texts that hold the words to know.
        max_words: words beyond this many are left to bytes, the rarest first.
    """
    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    counts: Counter[str] = Counter()
    for text in corpus:
        for piece in _outside(text, (*SPECIAL, *REPLY_TAGS)):
            counts.update(word for word, _ in split.pre_tokenize_str(piece))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [word for word in counts if len(word) > 1]
    words = sorted(sorted(words, key=lambda word: (-counts[word], word))[:max_words])

    # With `ignore_merges` a word in the vocabulary is taken whole, so no merge table (whose
    # half-words would double the vocabulary) is needed; all else falls apart into bytes.
    vocabulary = {token: index for index, token in enumerate([*alphabet, *words])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in REPLY_TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        additional_special_tokens=[token for token in SPECIAL if token not in (TURN_END, END_OF_TEXT)],
        model_max_length=8192,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def _outside(text: str, markers: Iterable[str]) -> list[str]:
    """The stretches of `text` between markers."""
    pieces = [text]
    for marker in markers:
        pieces = [part for piece in pieces for part in piece.split(marker)]
    return [piece for piece in pieces if piece]
