"""One token a word; words that the editor has never read are all the same to it."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN, START = "<pad>", "<unk>", "<start>"
WORD = r"[\p{L}\p{N}'-]+"
MAX_TOKENS = 32
"""The longest prompt of the world's experts has 23 words; of a longer one the beginning is read."""


def build_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of the words in `texts`; case and punctuation don't count. Equal words, equal tokenizers.

    Every text begins with a token of its own, so that no prompt is empty.
    """
    lower = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace("center", "centre")]
    )
    words = pre_tokenizers.Split(Regex(WORD), "removed", invert=True)
    seen = {word for text in texts for word, _ in words.pre_tokenize_str(lower.normalize_str(text))}
    vocabulary = {token: index for index, token in enumerate([PAD, UNKNOWN, START, *sorted(seen)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer, tokenizer.pre_tokenizer = lower, words
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A", special_tokens=[(START, vocabulary[START])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        bos_token=START,
        model_max_length=MAX_TOKENS,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )
