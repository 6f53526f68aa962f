"""The text protocol: how an observation becomes a message and a reply becomes a critique.

One parser serves environment, reward, inference and data. A well-formed reply is exactly

    <think>why</think> <score>{"semantic": 3, "quality": 6.5}</score> <answer>next prompt</answer>

in this order, with nothing but white space around the blocks.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from typing import Any

from thinkedit.configs.schema import ProtocolConfig
from thinkedit.errors import ConfigError, UnknownName
from thinkedit.types import RGB, SCORE_MAX, SCORE_MIN, Critique, End, Observation, ParseError, Scores

BLOCKS = ("think", "score", "answer")
SCORE_KEYS = ("semantic", "quality")
TEMPLATES = ("full", "brief")

# Control tokens of the chat models in use: <|im_end|> and its like, image slots, turn markers.
_SPECIAL_TOKEN = re.compile(
    r"<[|｜][^<>|｜\s]{1,80}[|｜]>"
    r"|</?(?:s|pad|unk|bos|eos|mask|cls|sep|img|image|video|audio|image_soft_token|IMG_CONTEXT"
    r"|(?:start|end)_of_(?:turn|image|audio)|tool_call|tool_response)>"
    r"|\[/?INST\]|\[IMG(?:_BREAK|_END)?\]",
    re.IGNORECASE,
)
_PROTOCOL_TAG = re.compile(r"</?(?:think|score|answer)>", re.IGNORECASE)
_VISIBLE = str.maketrans("<>[]", "‹›［］")

# What a model copies out of a template when it has nothing to say.
_TEMPLATE_VARIABLE = re.compile(
    r"\{\s*(?:instruction|original_instruction|prompt|current_prompt|next_prompt|rewritten_prompt"
    r"|refined_prompt|improved_prompt|new_prompt|answer)\s*\}"
)
_ECHOES = frozenset(
    (
        *("prompt", "the prompt", "your prompt", "your prompt here", "next prompt", "the next prompt"),
        *("new prompt", "improved prompt", "refined prompt", "rewritten prompt", "updated prompt"),
        *("the improved prompt", "current prompt", "the current prompt", "unchanged prompt"),
        *("improved prompt or current prompt", "answer", "your answer", "your answer here", "...", "…"),
        "either the improved prompt, or the current prompt repeated exactly",
    )
)
_WRAPPERS = "[](){}<>‹›\"'`“”‘’*_ \t\r\n"

_FULL = """\
You judge image edits and write better prompts for an image editor. You see two images. \
The first is the source. The second is what the editor made of the source from the current prompt.

You are given two texts:
- the instruction: what the user asked for. It never changes, and every score is given against it.
- the current prompt: what the editor was last told. It may be the instruction itself.

Score the second image on two scales from 0 to 10. Whole numbers or one decimal.
semantic: was the instruction carried out, and did everything else stay as it was?
  0 nothing asked for was done, or the wrong thing was; 3 an attempt that misses the main point; \
5 about half is right, or right with clear damage elsewhere; 8 done, with slight deviations; \
10 exactly what was asked and nothing more. Changes that nobody asked for lower this score.
quality: does the second image look right in itself?
  0 broken; 3 disturbing flaws (distortion, blur, wrong anatomy, seams); 5 visible flaws; \
8 natural but for small flaws; 10 natural light, shadow, perspective and texture, no flaw.

The editor always starts again from the source, so the prompt has to ask for the whole change. \
If both scores are at least {threshold}, the edit is good enough: repeat the current prompt exactly. \
Otherwise write a better prompt. Find out what went wrong, keep the wording that worked, and mend the rest:
- vague wording: name concrete objects, attributes and spatial relations;
- contradictory demands: decide what matters most and simplify;
- details lost: say what must stay unchanged;
- wrong place or size: give the position and the size relative to other objects;
- wrong style: name material, texture and light;
- too much or too little: state the degree.

Reply with three blocks in this order and nothing else:
<think> what you see in both images, what went wrong and how to mend it </think>
<score>{{"semantic": 4, "quality": 7.5}}</score>
<answer> either the improved prompt, or the current prompt repeated exactly </answer>
The numbers in the example are only an example. The answer is sent to the editor as it stands.

instruction: {instruction}
current prompt: {prompt}"""

_BRIEF = "instruction: {instruction}\nprompt: {prompt}"


class Protocol:
    """Renders observations and parses replies, as `cfg` says.

    Args:
        cfg: template, strictness and answer length.
        accept_at: the threshold that the "full" template names, in [0, 10]; the session
            checks that it is the one it applies.

    Raises:
        UnknownName: no such template.
        ConfigError: a limit that no reply could meet.
    """

    def __init__(self, cfg: ProtocolConfig | None = None, *, accept_at: float = 8.0) -> None:
        cfg = cfg or ProtocolConfig()
        if cfg.template not in TEMPLATES:
            raise UnknownName("protocol.template", cfg.template, TEMPLATES)
        if cfg.max_answer_chars < 1:
            raise ConfigError(f"protocol.max_answer_chars must be at least 1, got {cfg.max_answer_chars}")
        self.cfg = cfg
        self.accept_at = accept_at

    @property
    def prompt_hash(self) -> str:
        """Of the message without an instruction and a prompt: equal where the same is asked."""
        return hashlib.sha256(self._worded("", "").encode()).hexdigest()[:16]

    def parse(self, reply: str, current_prompt: str | None = None) -> Critique | ParseError:
        """Read a reply. Never raises, whatever the text; the answer is trimmed, nothing else.

        Args:
            reply: the completion as sampled.
            current_prompt: the prompt whose edit the reply judges. Repeating it is always a
                legal answer, even where the user's own text is over-long or holds tokens
                that a new prompt may not hold.

        Returns:
            The critique, or the first fault found.
        """
        if not is_unicode(reply):
            return ParseError.NOT_UNICODE
        if self.cfg.compat:
            return _parse_compat(reply)
        return self._parse_strict(reply, current_prompt)

    def _parse_strict(self, reply: str, current_prompt: str | None) -> Critique | ParseError:
        blocks = _split_strict(reply)
        if isinstance(blocks, ParseError):
            return blocks
        think, score, answer = blocks
        if _is_blank(think):
            return ParseError.THINK_EMPTY
        scores = _read_scores(score)
        if isinstance(scores, ParseError):
            return scores
        answer = answer.strip()
        if current_prompt is None or not self.repeats(answer, current_prompt):
            fault = self.answer_fault(answer)
            if fault is not None:
                return fault
        return Critique(think=think.strip(), scores=scores, answer=answer)

    def answer_fault(self, answer: str) -> ParseError | None:
        """What keeps a text, already trimmed, from being sent to an editor as a new prompt."""
        if _is_blank(answer):
            return ParseError.ANSWER_EMPTY
        if len(answer) > self.cfg.max_answer_chars:
            return ParseError.ANSWER_TOO_LONG
        if _TEMPLATE_VARIABLE.search(answer) or answer.strip(_WRAPPERS).casefold() in _ECHOES:
            return ParseError.ANSWER_PLACEHOLDER
        if _SPECIAL_TOKEN.search(answer):
            return ParseError.SPECIAL_TOKEN
        return None

    def repeats(self, answer: str, current_prompt: str) -> bool:
        """Whether `answer` keeps the current edit: it is the current prompt, as held or as shown."""
        answer, current = answer.strip(), current_prompt.strip()
        return bool(answer) and answer in (current, visible(current).strip())

    def ending(self, critique: Critique, current_prompt: str) -> End | None:
        """Whether a critique keeps the current edit, and so ends the loop.

        Returns:
            ACCEPTED when both predicted scores reach `accept_at`, else REPEATED when the answer is the
            current prompt, else None: the answer is the next prompt.
        """
        if critique.scores.lowest >= self.accept_at:
            return End.ACCEPTED
        return End.REPEATED if self.repeats(critique.answer, current_prompt) else None

    def render_text(self, observation: Observation) -> str:
        """The text of the user message: task, instruction and current prompt.

        The user's texts are put in once, side by side, with control tokens made visible
        (`<|im_end|>` is shown as `‹|im_end|›`), so that they can neither be read as tokens
        of the model nor as slots of the template.
        """
        return self._worded(visible(observation.instruction), visible(observation.prompt))

    def _worded(self, instruction: str, prompt: str) -> str:
        template = _FULL if self.cfg.template == "full" else _BRIEF
        return template.format(threshold=f"{self.accept_at:g}", instruction=instruction, prompt=prompt)

    def messages(self, observation: Observation) -> list[dict[str, Any]]:
        """One user message in the chat-template form: two image slots, then the text."""
        text = {"type": "text", "text": self.render_text(observation)}
        return [{"role": "user", "content": [{"type": "image"}, {"type": "image"}, text]}]

    def images(self, observation: Observation) -> list[RGB]:
        """The pictures for the two slots of `messages`: source, then current edit."""
        return [observation.source, observation.edited]

    def format_reply(self, critique: Critique, current_prompt: str | None = None) -> str:
        """The reply that parses to `critique`; `parse(format_reply(c)) == c` but for outer white space.

        Raises:
            ValueError: no well-formed reply says this (e.g. an empty answer).
        """
        scores = json.dumps({key: _plain_number(getattr(critique.scores, key)) for key in SCORE_KEYS})
        reply = (
            f"<think>{critique.think}</think>\n<score>{scores}</score>\n<answer>{critique.answer}</answer>"
        )
        parsed = self.parse(reply, current_prompt)
        if isinstance(parsed, ParseError):
            raise ValueError(f"no well-formed reply says this critique ({parsed.value}): {critique!r}")
        return reply


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can carry the text (a lone surrogate cannot be sent or stored)."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def has_tokens(text: str) -> bool:
    """Whether a text holds a control token of a chat model or a tag of the protocol."""
    return any(pattern.search(text) for pattern in (_SPECIAL_TOKEN, _PROTOCOL_TAG))


def visible(text: str) -> str:
    """`text` with control tokens and protocol tags made visible instead of effective."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    shown = None
    while shown != text:  # taking one token apart may leave another: <<|a|>b...
        shown = text
        for pattern in (_SPECIAL_TOKEN, _PROTOCOL_TAG):
            text = pattern.sub(lambda found: found.group().translate(_VISIBLE), text)
    return text


def _is_blank(text: str) -> bool:
    """No character that leaves ink: white space, control and format characters only."""
    return all(unicodedata.category(char)[0] in "ZC" for char in text)


def _plain_number(value: float) -> int | float:
    return int(value) if float(value).is_integer() else float(value)


def _split_strict(reply: str) -> tuple[str, str, str] | ParseError:
    """The contents of the three blocks, or what is wrong with the frame around them."""
    tags = [tag for name in BLOCKS for tag in (f"<{name}>", f"</{name}>")]
    counts = [reply.count(tag) for tag in tags]
    missing = (ParseError.MISSING_THINK, ParseError.MISSING_SCORE, ParseError.MISSING_ANSWER)
    for i, error in enumerate(missing):
        if not (counts[2 * i] and counts[2 * i + 1]):
            return error
    if max(counts) > 1:
        return ParseError.DUPLICATE
    starts = [reply.index(tag) for tag in tags]
    if starts != sorted(starts):
        return ParseError.ORDER
    ends = [start + len(tag) for start, tag in zip(starts, tags, strict=True)]
    outside = (reply[: starts[0]], reply[ends[1] : starts[2]], reply[ends[3] : starts[4]], reply[ends[5] :])
    if any(text.strip() for text in outside):
        return ParseError.EXTRA_TEXT
    think, score, answer = (reply[ends[i] : starts[i + 1]] for i in (0, 2, 4))
    return think, score, answer


class _DuplicateKey(ValueError):
    pass


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise _DuplicateKey
    return dict(pairs)


def _read_scores(text: str) -> Scores | ParseError:
    try:
        # Integers are read as floats: Python refuses int literals of thousands of digits.
        read = json.loads(text, object_pairs_hook=_object_without_duplicates, parse_int=float)
    except _DuplicateKey:
        return ParseError.SCORE_KEY
    except (ValueError, RecursionError):  # RecursionError: "[[[[..." a hundred thousand deep
        return ParseError.SCORE_JSON
    if not isinstance(read, dict):
        return ParseError.SCORE_JSON
    if set(read) != set(SCORE_KEYS):
        return ParseError.SCORE_KEY
    values = [read[key] for key in SCORE_KEYS]
    if not all(isinstance(value, float) for value in values):
        return ParseError.SCORE_TYPE
    if not all(SCORE_MIN <= value <= SCORE_MAX for value in values):  # false for NaN too
        return ParseError.SCORE_RANGE
    semantic, quality = (value + 0.0 for value in values)  # -0.0 becomes 0.0
    return Scores(semantic=semantic, quality=quality)


# --- the reference's verdicts, for A/B runs ----------------------------------------------


def _parse_compat(reply: str) -> Critique | ParseError:
    """Accept and refuse as EditThinker's released `tag_format_reward` does (commit 803d1a7).

    White space around `<`, `>` and `/` goes first; the three tag pairs must occur in any
    case and open in order; the score block, in lower case, must be a JSON object with both
    keys as numbers. Range, finiteness, duplicates, text outside and an empty answer pass.
    """
    reply = _without_space_at_brackets(reply)
    blocks = [_first_block(name, reply, re.IGNORECASE) for name in BLOCKS]
    missing = (ParseError.MISSING_THINK, ParseError.MISSING_SCORE, ParseError.MISSING_ANSWER)
    for block, error in zip(blocks, missing, strict=True):
        if block is None:
            return error
    (at_think, think), (at_score, _), (at_answer, answer) = (block for block in blocks if block is not None)
    if not at_think < at_score < at_answer:
        return ParseError.ORDER
    lower = _first_block("score", reply)
    if lower is None:
        return ParseError.MISSING_SCORE
    scores = _read_scores_compat(lower[1])
    if isinstance(scores, ParseError):
        return scores
    return Critique(think=think.strip(), scores=scores, answer=answer.strip())


def _without_space_at_brackets(text: str) -> str:
    # Not one regular expression with \s* on both sides: that is quadratic in a long run of spaces.
    pieces = re.split(r"([<>/])", text)
    last = len(pieces) - 1
    for i in range(0, len(pieces), 2):
        left = pieces[i] if i == 0 else pieces[i].lstrip()
        pieces[i] = left if i == last else left.rstrip()
    return "".join(pieces)


def _first_block(name: str, text: str, flags: int = 0) -> tuple[int, str] | None:
    """Start and content of the first `<name>...</name>`."""
    opening = re.search(f"<{name}>", text, flags)
    if opening is None:
        return None
    closing = re.compile(f"</{name}>", flags).search(text, opening.end())
    return None if closing is None else (opening.start(), text[opening.end() : closing.start()])


def _read_scores_compat(text: str) -> Scores | ParseError:
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        return ParseError.SCORE_JSON
    if not isinstance(read, dict) or not read:
        return ParseError.SCORE_JSON
    if any(key not in read for key in SCORE_KEYS):
        return ParseError.SCORE_KEY
    values = [read[key] for key in SCORE_KEYS]
    if not all(isinstance(value, int | float) for value in values):
        return ParseError.SCORE_TYPE
    return Scores(semantic=_as_float(values[0]), quality=_as_float(values[1]))


def _as_float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.copysign(math.inf, value)
