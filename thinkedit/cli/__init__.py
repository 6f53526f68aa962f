"""The `thinkedit` command.

Commands are listed here and imported when one is called, so that `--help` is quick and a part whose
libraries are missing never stops another one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from thinkedit.errors import ThinkEditError


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its name, the function behind it, and its line in `thinkedit --help`."""

    name: str
    function: str  # module:function
    help: str

    def load(self) -> Callable[..., Any]:
        """Import the function."""
        module, _, name = self.function.partition(":")
        function: Callable[..., Any] = getattr(import_module(module), name)
        return function


PANELS: dict[str, tuple[Command, ...]] = {
    "Edit": (
        Command("edit", "thinkedit.cli.edit:edit", "Edit your own picture with a thinker that looks on."),
        Command("studio", "thinkedit.cli.studio:studio", "The same in a web page."),
    ),
    "Train": (
        Command("demo", "thinkedit.cli.demo:demo", "The whole loop on this machine, from SFT to a report."),
        Command("sft", "thinkedit.cli.train:sft", "Warm start: learn from a scripted expert."),
        Command("train", "thinkedit.cli.train:train", "GRPO on real edits and verdicts."),
    ),
    "Data": (
        Command("collect", "thinkedit.cli.data:collect", "Raw trajectories of an expert with the editor."),
        Command("build-data", "thinkedit.cli.data:build_data", "Training sets from raw trajectories."),
        Command("convert-data", "thinkedit.cli.data:convert_data", "Training data in another format."),
    ),
    "Look": (
        Command("rollout", "thinkedit.cli.evaluate:rollout", "Play and print a few episodes of a policy."),
        Command("evaluate", "thinkedit.cli.evaluate:evaluate", "Play held-out tasks and give figures."),
        Command("report", "thinkedit.cli.report:report", "Write a run's HTML report."),
        Command("rescore", "thinkedit.cli.rescore:rescore", "Score stored episodes with another reward."),
        Command("study", "thinkedit.cli.study:study", "The paper's ablations, run anew on one page."),
        Command("evidence", "thinkedit.cli.report:evidence", "Figures over several runs, as a page."),
    ),
    "Make": (
        Command("make-policy", "thinkedit.cli.policy:make_policy", "Write a tiny Qwen3-VL."),
        Command("pretrain-base", "thinkedit.cli.policy:pretrain_base", "Teach one to look, from nothing."),
        Command("train-editor", "thinkedit.cli.editor:train_editor", "Teach a small diffusion editor."),
    ),
    "Serve": (
        Command(
            "serve-editor", "thinkedit.cli.serve:serve_editor", "Serve an editor to trainers, over HTTP."
        ),
        Command("serve-judge", "thinkedit.cli.judge:serve_judge", "Serve a model as a judge, with vLLM."),
    ),
    "Tools": (
        Command(
            "check-judge", "thinkedit.cli.judge:check_judge", "Ask the judge about edits of known order."
        ),
        Command("reward", "thinkedit.cli.reward:reward", "Score one reply by hand."),
        Command("config", "thinkedit.cli.config:config", "Print a resolved configuration, or list recipes."),
        Command(
            "plugins", "thinkedit.cli.plugins:plugins", "List editors, judges, terms, tasks, estimators."
        ),
        Command("doctor", "thinkedit.cli.doctor:doctor", "Check this machine and say how to mend it."),
    ),
}
COMMANDS = {command.name: command for commands in PANELS.values() for command in commands}


class LazyGroup(TyperGroup):
    """Loads a command when it is called; prints a `ThinkEditError` as one line."""

    def resolve_command(self, ctx: Any, args: Any) -> Any:
        name, listed, rest = super().resolve_command(ctx, args)
        if name is None or name not in COMMANDS:
            return name, listed, rest
        single = typer.Typer(add_completion=False)
        single.command(name)(COMMANDS[name].load())
        return name, typer.main.get_command(single), rest

    def invoke(self, ctx: Any) -> Any:
        debug = ctx.params.get("debug", False)
        try:
            return super().invoke(ctx)
        except ThinkEditError as error:
            if debug:
                raise
            _say(str(error))
        except ModuleNotFoundError as error:
            missing = (error.name or "").split(".")[0]
            if debug or missing in ("", "thinkedit"):
                raise
            _say(f"this needs {missing!r}, which is not installed; docs/install.md tells which set has it")
        raise typer.Exit(2)


def _say(message: str) -> None:
    Console(stderr=True, soft_wrap=True).print("error:", style="bold red", end=" ")
    typer.echo(message, err=True)


app = typer.Typer(
    cls=LazyGroup,
    help="Train a multimodal thinker to steer any image editor: critique, rewrite, edit again.",
    epilog="Start with: thinkedit demo. Every run leaves one folder, with a report, in runs/.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("thinkedit"))
        raise typer.Exit


@app.callback()
def main(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Options before the command; `LazyGroup` reads `debug`."""


def _listed() -> None:
    """Stands for a command in `--help` until `LazyGroup` loads it."""


for _panel, _commands in PANELS.items():
    for _command in _commands:
        app.command(_command.name, help=_command.help, rich_help_panel=_panel)(_listed)
