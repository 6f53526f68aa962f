"""Options that several commands share, so that they read and behave alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from thinkedit.configs import schema

Config = Annotated[
    str,
    typer.Option("--config", "-c", metavar="NAME|PATH", help="A recipe, a YAML file, or a run folder."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="grpo.lr=1e-5 sets a value; editor=procedural picks a file of a group.",
        show_default=False,
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and start nothing.")]

OPENAI = "api.openai.com"

# --- of `thinkedit edit` and `thinkedit studio` --------------------------------------------

InferenceConfig = Annotated[
    str | None,
    typer.Option(
        "--config",
        "-c",
        metavar="NAME|PATH",
        help="A recipe, a YAML file, or a run folder.",
        show_default="the run's that --thinker names, else demo",
    ),
]
Thinker = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER|URL|NAME",
        help="A policy's folder, a run's, an OpenAI-compatible server, or naive_expert.",
        show_default="inference.thinker",
    ),
]
Model = Annotated[
    str | None, typer.Option(help="As the server calls it.", show_default="inference.server.model")
]
Mode = Annotated[
    str | None,
    typer.Option(help="while, before, before+while or expert.", show_default="inference.mode"),
]
AcceptAt = Annotated[
    float | None,
    typer.Option(help="Scores that satisfy the thinker, 0 to 10.", show_default="episode.accept_at"),
]


def for_inference(
    config: str | None,
    overrides: Sequence[str] | None,
    *,
    thinker: str | None,
    model: str | None,
    mode: str | None,
    accept_at: float | None,
    more: Mapping[str, object],
) -> schema.Config:
    """The configuration with these options on top; those that are None leave it as it is.

    Without a `config` it is the one that suits the thinker: of a run's folder the run's own, so that it is
    asked as it was trained; of a server the demo's with a text that explains the task, and without a key
    unless the server is OpenAI's.

    Raises:
        UnknownName: the thinker is no folder, address or name.
        ConfigError: see `load_config`.
    """
    from dataclasses import replace

    from thinkedit.configs.check import check
    from thinkedit.configs.load import load_config

    given = {"inference.mode": mode, "episode.accept_at": accept_at, **more}
    settings = [f"{key}={value}" for key, value in given.items() if value is not None]
    base, suited = (config, []) if config is not None else _suited(thinker)
    loaded = load_config(base, [*suited, *(overrides or ()), *settings])
    inference, policy = loaded.inference, loaded.policy
    if thinker is not None and "://" in thinker:
        server = replace(inference.server, base_url=thinker)
        inference = replace(inference, thinker="server", server=server)
    elif thinker is not None and Path(thinker).is_dir():
        inference, policy = replace(inference, thinker="policy"), replace(policy, path=str(_policy(thinker)))
    elif thinker is not None:
        inference = replace(inference, thinker=_name(thinker))
    if model is not None:
        inference = replace(inference, server=replace(inference.server, model=model))
    loaded = replace(loaded, inference=inference, policy=policy)
    check(loaded)
    return loaded


def _suited(thinker: str | None) -> tuple[str, list[str]]:
    """The recipe for a thinker, and what to set on top."""
    from urllib.parse import urlsplit

    from thinkedit.configs.load import RESOLVED

    if thinker is not None and "://" in thinker:
        # A key in the environment is meant for the service that gave it out, not for any address.
        keyless = [] if urlsplit(thinker).hostname == OPENAI else ["inference.server.api_key_env=null"]
        return "demo", ["protocol.template=full", *keyless]
    if thinker is not None and Path(thinker, RESOLVED).is_file():
        return thinker, []
    return "demo", []


def _policy(folder: str) -> Path:
    """A model's folder as it is; of a run's folder its last trained policy."""
    from thinkedit.cli.stages import grpo_policy, sft_policy
    from thinkedit.evals.run import RunFolder

    run = RunFolder(Path(folder))
    found = [path for path in (grpo_policy(run), sft_policy(run)) if path.is_dir()]
    return found[0] if found else Path(folder)


def _name(thinker: str) -> str:
    from thinkedit.envs.world.experts import EXPERTS
    from thinkedit.errors import UnknownName

    known = ["policy", "server", *EXPERTS]
    if thinker not in known:
        raise UnknownName("thinker (no folder and no address)", thinker, known)
    return thinker
