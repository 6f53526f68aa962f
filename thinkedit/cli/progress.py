"""Progress bars of long work: how far, how fast, how long still."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


@contextmanager
def counter(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr; the function it gives takes the number done so far."""
    with bars() as shown:
        task = shown.add_task(label, total=total, latest="")
        yield lambda done: shown.update(task, completed=done)


@contextmanager
def steps(
    label: str, total: int, figures: Mapping[str, str]
) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """A bar over training steps, the latest value of some metrics beside it.

    Args:
        figures: metric name -> what to call it; one that a step lacks keeps its last value.
    """
    latest: dict[str, float] = {}
    with bars() as shown:
        task = shown.add_task(label, total=total, latest="starting")

        def on_step(metrics: Mapping[str, float]) -> None:
            latest.update({short: metrics[name] for name, short in figures.items() if name in metrics})
            text = "  ".join(f"{name} {value:.3g}" for name, value in latest.items())
            shown.update(task, completed=metrics["step"], latest=text)

        yield on_step


def bars() -> Progress:
    """Bars on stderr, to be entered; the field `latest` is shown at their end."""
    return Progress(
        TextColumn("{task.description:>22}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[latest]}"),
        console=Console(stderr=True),
    )
