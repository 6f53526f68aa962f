"""A vision-language model as a judge's server: vLLM's own, with what it leaves open closed."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

from starlette.types import ASGIApp

from thinkedit.actors.serving.address import token_for
from thinkedit.actors.serving.guard import Guard
from thinkedit.errors import ConfigError

KEY_VARIABLE = "VLLM_API_KEY"  # vLLM reads its key there; on a command line everybody could
MAX_BODY_BYTES = 64 * 2**20
TIMEOUT_S = 600.0  # of one request
_PICTURES = '{"image": 2, "video": 0, "audio": 0}'  # the source and the edit
# A weak model that may put blanks between the tokens of its JSON can put them there until it is cut off.
_COMPACT = '{"backend": "xgrammar", "disable_any_whitespace": true}'
# vLLM fetches whatever address a client writes into a message, unless it may from some hosts only;
# no host can have this name (RFC 2606). Pictures inside the request, as our judges send them, still pass.
_NOWHERE = "none.invalid"


class JudgeGuard(Guard):
    """ASGI middleware that vLLM puts before all of its routes: its own key covers some of them only."""

    def __init__(self, app: ASGIApp) -> None:
        token = os.environ.get(KEY_VARIABLE) or None
        super().__init__(app, token=token, max_body_bytes=MAX_BODY_BYTES, timeout_s=TIMEOUT_S)


def command(
    model: str,
    *,
    name: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    more: Sequence[str] = (),
) -> list[str]:
    """The command that serves a model.

    Args:
        model: a Hugging Face folder or hub name.
        name: what clients call it; None: `model`.
        more: further arguments of vLLM's; what is set here wins over them.

    Raises:
        ConfigError: `more` holds a key.
    """
    for argument in more:
        if argument.replace("_", "-").startswith("--api"):
            raise ConfigError(
                "a key on a command line can be read by every user: put it into the environment"
            )
    own = ["--model", model, "--served-model-name", name or model, "--host", host, "--port", str(port)]
    own += ["--limit-mm-per-prompt", _PICTURES, "--allowed-media-domains", _NOWHERE]
    own += ["--middleware", f"{JudgeGuard.__module__}.{JudgeGuard.__qualname__}"]
    if _on_cpu():
        own += ["--enforce-eager", "--distributed-executor-backend", "uni"]
    compact = ["--structured-outputs-config", _COMPACT]
    return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *compact, *more, *own]


def environment(host: str, token_env: str) -> Mapping[str, str]:
    """The whole environment of that command.

    Raises:
        ConfigError: other machines could reach `host` and there is no token in `token_env`, or a poor one.
    """
    token = token_for(host, token_env)
    added = {} if token is None else {KEY_VARIABLE: token}
    # vLLM's usage statistics would be sent to its makers.
    defaults = {"VLLM_NO_USAGE_STATS": "1"}
    if _on_cpu():
        # As for the policy (`thinkedit.actors.policy`).
        defaults |= {
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        }
    return defaults | dict(os.environ) | added


def _on_cpu() -> bool:
    """Whether the vLLM that is installed is the one for CPUs.

    Raises:
        ConfigError: none is.
    """
    for name, cpu in (("vllm-cpu", True), ("vllm", False)):
        try:
            return "cpu" in version(name) or cpu
        except PackageNotFoundError:
            continue
    raise ConfigError("serving a judge needs vLLM, which the pinned sets have: docs/install.md")
