"""What a general model is asked in plain words, and the JSON it shall answer with."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from thinkedit.envs.protocol import visible
from thinkedit.types import Observation

_THINKING = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_FENCE = re.compile(r"\A\s*```[a-zA-Z]*\s*\n(.*?)\n?\s*```\s*\Z", re.DOTALL)

_REFINE = """\
An image editor was given a picture and a prompt. You see two pictures: first the source, then what the \
editor made of it. Decide whether the user may be content, and if not, word a better prompt.

What the user asked for: {instruction}
What the editor was last told: {prompt}

Look at two things: was everything that was asked for done, and nothing else changed; and does the result \
look right in itself. Small flaws that nobody would mind are no reason to go on. The editor starts again \
from the source each time and has no memory, so a new prompt has to ask for the whole change: name objects, \
places, sizes, colours and materials, and say what must stay as it is.

Answer with a JSON object and nothing else:
"reason": what you see, and what is wrong if anything is;
"satisfied": true if the result is good enough, else false;
"next_prompt": the better prompt; when satisfied, an empty text."""

_REWRITE = """\
An image editor will change the picture that you see. It takes words literally and knows nothing but its \
prompt. Word the user's wish for it, so that it can hardly be misunderstood: name the objects concerned by \
what tells them apart in this picture, their places, sizes, colours and materials, and say what must stay \
as it is. Ask for nothing that the user did not ask for.

The user's wish: {instruction}

Answer with a JSON object and nothing else:
"reason": what in the picture matters for this wish;
"prompt": the prompt for the editor."""


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    @classmethod
    def read(cls, text: str) -> Self:
        """From a reply; a thinking part before it and code fences around it don't matter.

        Raises:
            ValueError: not the JSON that was asked for; the message says what is wrong.
        """
        text = _THINKING.sub("", text, count=1)
        fenced = _FENCE.match(text)
        try:
            return cls.model_validate_json(fenced[1] if fenced else text.strip())
        except ValidationError as error:
            faults = (f"{'.'.join(map(str, e['loc'])) or 'reply'}: {e['msg']}" for e in error.errors())
            raise ValueError("; ".join(faults)) from error


class Refinement(_Form):
    """The answer to `refine`."""

    reason: str
    satisfied: bool
    next_prompt: str


class Rewriting(_Form):
    """The answer to `rewrite`."""

    reason: str
    prompt: str


PROMPT_HASH = hashlib.sha256(
    json.dumps([_REFINE, _REWRITE, Refinement.model_json_schema(), Rewriting.model_json_schema()]).encode()
).hexdigest()[:16]
"""Of all that is asked, with the form of the answers: an expert that is asked otherwise answers otherwise."""


def refine(observation: Observation) -> str:
    """The question about an edit; the two pictures go with it."""
    return _REFINE.format(instruction=visible(observation.instruction), prompt=visible(observation.prompt))


def rewrite(instruction: str) -> str:
    """The question before the first edit; the source goes with it."""
    return _REWRITE.format(instruction=visible(instruction))
