"""The form of a judge's two questions: a profile fills in the words and the scale."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from string import Template
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """Two questions with two marks each, whole numbers in [0, top].

    version: raised with every change that may move a mark.
    system: who is asked, and the form of a reply.
    semantic: about source and edited picture; `$instruction` in it becomes the instruction, as a
        JSON string.
    quality: about the edited picture alone.
    """

    version: str
    top: int
    system: str
    semantic: str
    quality: str

    def about(self, instruction: str) -> str:
        """The semantic question. Any Unicode text is a legal instruction."""
        # Lone surrogates have no UTF-8 form and would fail in the HTTP client.
        legal = instruction.encode("utf-8", "replace").decode()
        return Template(self.semantic).substitute(instruction=json.dumps(legal, ensure_ascii=False))

    @property
    def schema(self) -> dict[str, Any]:
        """JSON schema of a reply."""
        return {
            "type": "object",
            "properties": {
                # First, so that a model that writes in order has looked before it marks.
                "reasoning": {"type": "string"},
                "score": {
                    "type": "array",
                    "items": {"type": "integer", "minimum": 0, "maximum": self.top},
                    "minItems": 2,
                    "maxItems": 2,
                },
            },
            "required": ["reasoning", "score"],
            "additionalProperties": False,
        }

    @property
    def everything(self) -> str:
        """For hashing."""
        return json.dumps([asdict(self), self.schema])
