"""The reference's editor protocol: `POST /edit` with JSON and base64, `GET /health`, `GET /status`.

Both spellings of the number of steps are sent: the reference's client says `num_inference_step`, its
servers read `num_inference_steps`. Besides the reference's fields a request carries two headers that
its servers ignore: an idempotency key, equal for equal edits with equal settings, and the seconds after
which nobody waits for the answer any more. Ours obeys the second, and joins equal edits by themselves.

Ours also takes `POST /edit-binary`, without base64 and with the source's hash instead of the source.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from thinkedit.envs.editors.faults import Again, Fault
from thinkedit.envs.editors.pictures import Resize
from thinkedit.types import RGB

IDEMPOTENCY_HEADER = "Idempotency-Key"
DEADLINE_HEADER = "X-Deadline-Seconds"
UNKNOWN_IMAGE = 409
"""Status of the binary route for a source that the server doesn't hold (any more)."""
STEP_FIELDS = ("num_inference_steps", "num_inference_step")
RESERVED = frozenset({"image", "prompt", "seed", "enhance_prompt", *STEP_FIELDS})
"""Request fields that are not free to be set."""

Fields = Mapping[str, Any]


def _table(**fields: Any) -> Fields:
    return MappingProxyType(fields)


@dataclass(frozen=True, slots=True)
class Preset:
    """What one editor is asked with: what the reference's client sends, so that its results compare."""

    steps: int | None = None
    fields: Fields = field(default_factory=_table)
    resize: Resize = Resize.NEVER


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "plain": Preset(),
        "flux_kontext": Preset(28, _table(guidance_scale=2.5), Resize.ROUNDED),
        "qwen_image_edit": Preset(50, _table(guidance_scale=5.0, negative_prompt=" "), Resize.ASPECT),
        "qwen_image_edit_lightning": Preset(
            8, _table(guidance_scale=1.0, negative_prompt=" "), Resize.ASPECT
        ),
        "omnigen2": Preset(50, _table(text_guidance_scale=5.0, image_guidance_scale=1.5, negative_prompt="")),
        "longcat": Preset(
            50, _table(guidance_scale=4.5, negative_prompt="", num_images_per_prompt=1), Resize.ASPECT
        ),
    }
)


def sendable(prompt: str) -> str:
    """The prompt as UTF-8 can carry it: U+FFFD in place of each lone surrogate."""
    return prompt.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def idempotency_key(editor: str, settings: Fields, source: RGB, prompt: str, seed: int) -> str:
    """Equal for equal pixels, prompt, seed and settings; 64 hex digits."""
    rest = json.dumps([editor, dict(settings), source.shape, prompt, seed], sort_keys=True)
    return hashlib.sha256(hashlib.sha256(source.tobytes()).digest() + rest.encode()).hexdigest()


def request_body(png: bytes, prompt: str, seed: int, steps: int | None, fields: Fields) -> bytes:
    """The JSON of `POST /edit`."""
    body = {
        "image": base64.b64encode(png).decode("ascii"),
        "prompt": prompt,
        "seed": seed,
        "enhance_prompt": False,
        **(dict.fromkeys(STEP_FIELDS, steps) if steps is not None else {}),
        **fields,
    }
    return json.dumps(body).encode()


def binary_body(file: bytes, prompt: str, seed: int) -> bytes:
    """The JSON of `POST /edit-binary` for a picture's file."""
    return json.dumps({"source": image_digest(file), "prompt": prompt, "seed": seed}).encode()


def image_digest(file: bytes) -> str:
    """What the file is called at the server: `PUT /images/DIGEST`."""
    return hashlib.sha256(file).hexdigest()


def answer_limit(request_bytes: int, pixels: int) -> int:
    """Bytes that an honest answer stays below: the echo of the request, and an incompressible RGBA
    PNG of so many pixels in base64."""
    return request_bytes + pixels * 4 * 4 // 3 + 2**20


def edited_image(answer: bytes, seed: int) -> bytes:
    """The edited picture's file in the body of a 200 answer.

    Raises:
        Fault: no JSON object, no success, another seed than asked for, no base64.
    """
    try:
        record = json.loads(answer)
    except ValueError as error:  # damaged on its way, or a proxy's page: may go well next time
        raise Fault("the answer is no JSON", sick=True) from error
    if not isinstance(record, dict):
        raise _wrong(f"the answer is a JSON {type(record).__name__}, not an object")
    if record.get("success") is not True:
        raise _wrong(f"success is {record.get('success')!r}: {record.get('error') or record.get('detail')}")
    if record.get("seed") != seed or isinstance(record["seed"], bool):
        raise _wrong(f"seed {seed} was asked for, {record.get('seed')!r} was used")
    text = record.get("edited_image")
    if not isinstance(text, str) or not text:
        raise _wrong("the answer has no edited_image")
    return from_base64(text)


def from_base64(text: str) -> bytes:
    """
    Raises:
        Fault: it is none.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _wrong("the edited image is no base64") from error


def _wrong(message: str) -> Fault:
    return Fault(message, again=Again.ELSEWHERE, sick=True)
