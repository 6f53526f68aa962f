"""`thinkedit reward`: what one reply would earn, by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from thinkedit.rewards.profiles import PROFILES
from thinkedit.types import SCORE_MAX, SCORE_MIN, Outcome, ParseError, Scores, Verdict


def reward(
    reply: Annotated[Path, typer.Option(help="File with the reply text; - reads standard input.")],
    prompt: Annotated[str, typer.Option(help="The prompt whose edit the reply judges.")],
    before: Annotated[str, typer.Option(help="Judged scores of that edit: semantic,quality (0-10).")],
    after: Annotated[str, typer.Option(help="Judged scores of the edit made from the reply's answer.")],
    profile: Annotated[str, typer.Option(help=f"One of {', '.join(PROFILES)}.")] = "balanced",
    threshold: Annotated[
        float | None,
        typer.Option(help="Apply the accept rule too: predicted scores that both reach this keep the edit."),
    ] = None,
) -> None:
    """Score one reply by hand.

    Prints {"total", "terms", "outcome", "error"} as JSON. Repeating the prompt keeps the edit, so
    that --after counts as equal to --before; so do, with --threshold, predicted scores that reach it.
    A malformed reply has total 0 and its error code.
    """
    from thinkedit.configs.schema import EpisodeConfig, RewardConfig
    from thinkedit.envs.protocol import Protocol
    from thinkedit.rewards.rubric import Rubric
    from thinkedit.rewards.terms import Evidence

    judged = [
        Verdict(scores=_scores(text, option), judge_id="by hand", prompt_hash="")
        for text, option in ((before, "--before"), (after, "--after"))
    ]
    rubric = Rubric.from_config(RewardConfig(profile=profile))
    protocol = Protocol()
    # Bytes that are no UTF-8 become lone surrogates, which the parser has an error code for.
    read = protocol.parse(_read(reply).decode("utf-8", "surrogateescape"), prompt)
    accept_at = EpisodeConfig().accept_at if threshold is None else threshold
    error = read.value if isinstance(read, ParseError) else None
    if isinstance(read, ParseError):
        evidence = Evidence(critique=None, before=judged[0], accept_at=accept_at)
    else:
        accepted = threshold is not None and read.scores.lowest >= threshold
        evidence = Evidence(
            critique=read,
            before=judged[0],
            after=judged[1],
            kept=accepted or protocol.repeats(read.answer, prompt),
            accept_at=accept_at,
        )
    breakdown = rubric(evidence)
    report = {
        "total": _tidy(breakdown.total),
        "terms": {name: _tidy(value) for name, value in breakdown.terms.items()},
        "outcome": (Outcome.OK if error is None else Outcome.MALFORMED).value,
        "error": error,
    }
    typer.echo(json.dumps(report))


def _read(path: Path) -> bytes:
    if str(path) == "-":
        return sys.stdin.buffer.read()
    try:
        return path.read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}", param_hint="--reply") from error


def _scores(text: str, option: str) -> Scores:
    try:
        semantic, quality = (float(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(
            f"expected two numbers such as 5,6, got {text!r}", param_hint=option
        ) from error
    if not all(SCORE_MIN <= score <= SCORE_MAX for score in (semantic, quality)):
        raise typer.BadParameter(f"scores lie in [0, 10], got {text!r}", param_hint=option)
    return Scores(semantic, quality)


def _tidy(value: float) -> float:
    """Without the last digits' rounding noise, for people."""
    return round(value, 12) + 0.0
