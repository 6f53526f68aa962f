"""Episodes and runs in the terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.padding import Padding
from rich.panel import Panel
from rich.text import Text

from thinkedit.actors.inference.records import (
    Attempt,
    Critiqued,
    Edited,
    EditResult,
    Event,
    Finished,
    Judged,
    Rewritten,
    Started,
    Stop,
    Thought,
    Working,
)
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


_DOING = {"editor": "editing", "thinker": "thinking", "judge": "judging"}
_ENDS = {
    Stop.ACCEPTED: "the thinker is satisfied",
    Stop.REPEATED: "the thinker has no better prompt",
    Stop.TURN_LIMIT: "no turns are left",
    Stop.ONE_EDIT: "one edit was asked for",
    Stop.STOPPED: "stopped",
    Stop.THINKER_UNREADABLE: "what the thinker says can't be read",
    Stop.THINKER_FAILED: "the thinker failed",
    Stop.EDITOR_FAILED: "the editor failed",
}


class EventPrinter:
    """Prints a run's events as they come, with a note of who is at work. Use as a context manager."""

    def __init__(self, console: Console = console) -> None:
        self._console, self._status = console, console.status("starting")

    def __enter__(self) -> Self:
        self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._status.stop()

    def __call__(self, event: Event) -> None:
        match event:
            case Started():
                self._print(Text(event.instruction, style="bold"))
            case Working():
                self._status.update(_DOING[event.who])
            case Rewritten():
                self._print(Text("before the first edit", style="bold"))
                self._thought(event.thought)
            case Edited():
                self._edited(event.attempt)
            case Judged():
                self._judged(event.attempt)
            case Critiqued():
                assert event.attempt.thought is not None, "a critiqued attempt has a thought"
                self._thought(event.attempt.thought)
            case Finished():
                self._finished(event.result)

    def _edited(self, attempt: Attempt) -> None:
        self._print(Text(f"edit {attempt.index}", style="bold").append(f"  {attempt.seconds:.1f} s", "dim"))
        self._print(Text(attempt.prompt, style="cyan"), indent=2)

    def _judged(self, attempt: Attempt) -> None:
        if attempt.verdict is None:
            self._print(Text(f"judge: {attempt.judge_fault}", style="red"), indent=2)
        else:
            self._print(Text(f"judge: {_scores(attempt.verdict.scores)}"), indent=2)

    def _thought(self, thought: Thought) -> None:
        for fault in thought.faults:
            self._print(Text(f"asked again: {fault}", style="yellow"), indent=2)
        self._print(Text(thought.reason, style="dim"), indent=2)
        if thought.predicted is not None:
            self._print(Text(f"thinker: {_scores(thought.predicted)}"), indent=2)

    def _finished(self, result: EditResult) -> None:
        style = "red" if result.stop.failed or result.chosen is None else "green"
        which = "no edit" if result.chosen is None else f"edit {result.chosen}"
        self._print(Text(f"{_ENDS[result.stop]}: {which} is the result", style=style))
        if result.detail:
            self._print(Text(result.detail, style="yellow"), indent=2)

    def _print(self, text: Text, indent: int = 0) -> None:
        self._console.print(Padding(text, (0, 0, 0, indent), expand=False))
