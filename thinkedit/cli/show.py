"""Episodes in the terminal."""

from __future__ import annotations

from rich.console import Console, Group
from rich.panel import Panel
from rich.text import Text

from thinkedit.types import Episode, Scores, Turn, Verdict

console = Console()


def print_episode(episode: Episode) -> None:
    """Print an episode's turns: what the thinker said, and what the judge said of the result."""
    lines = [Text(f"first edit: {_marks(episode.first)}")]
    for turn in episode.turns:
        lines += _turn_lines(turn)
    title = f"{episode.task.uid}: {episode.task.instruction}"
    console.print(Panel(Group(*lines), title=Text(title), title_align="left"))


def _turn_lines(turn: Turn) -> list[Text]:
    head = Text(f"turn {turn.index + 1}", style="bold")
    if turn.critique is None:
        return [head, Text(f"  malformed ({turn.error}): {turn.reply}", style="red")]
    critique = turn.critique
    lines = [
        head,
        Text(f"  think    {critique.think}", style="dim"),
        Text(f"  guessed  {_scores(critique.scores)}, judged {_marks(turn.before)}"),
    ]
    if turn.kept:
        lines.append(Text("  kept the edit", style="green"))
    else:
        lines.append(Text(f"  prompt   {critique.answer}"))
        lines.append(Text(f"  edit     {_marks(turn.after)}"))
    if turn.reward is None:
        lines.append(Text(f"  no reward: {turn.outcome} {turn.detail}", style="yellow"))
    else:
        lines.append(Text(f"  reward   {turn.reward.total:.3f}"))
    return lines


def _marks(verdict: Verdict | None) -> str:
    return "not graded" if verdict is None else _scores(verdict.scores)


def _scores(scores: Scores) -> str:
    return f"semantic {scores.semantic:g}, quality {scores.quality:g}"
