"""Episodes as picture strips: which to show, and what to say about them."""

from __future__ import annotations

import base64
import difflib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from markupsafe import Markup, escape
from PIL import Image

from thinkedit.evals.run import label
from thinkedit.types import RGB, Episode, Outcome, RewardBreakdown, Scores, Turn

KINDS = {
    "solved": "Mended",
    "better": "Better",
    "good at once": "Good at once",
    "unchanged": "Unchanged",
    "worse": "Worse",
    "malformed": "Malformed reply",
    "failed": "Editor or judge failed",
}
"""Kinds of episode, in the order of the filter."""

TRAINING = "training"  # the arm name of episodes from the trajectory store
NOTICEABLE = 0.5  # change of O below which an episode counts as unchanged
_THUMBNAIL = 384  # longest side of an embedded picture, in pixels


def kind_of(episode: Episode, accept_at: float) -> str:
    """One of `KINDS`: what came of the episode, by the judge's scores and its outcome."""
    if not episode.outcome.valid or episode.first is None or episode.final is None:
        return "failed"
    if any(turn.outcome is Outcome.MALFORMED for turn in episode.turns):
        return "malformed"
    first, final = episode.first.scores, episode.final.scores
    gain = final.overall - first.overall
    if gain >= NOTICEABLE:
        return "solved" if final.lowest >= accept_at else "better"
    if gain <= -NOTICEABLE:
        return "worse"
    return "good at once" if first.lowest >= accept_at else "unchanged"


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a strip. `scores` are the judge's, `guess` what the thinker said of it."""

    caption: str
    uri: str
    scores: Scores | None = None
    guess: Scores | None = None


@dataclass(frozen=True, slots=True)
class TermRow:
    name: str
    raw: float
    weight: float

    @property
    def points(self) -> float:
        return self.raw * self.weight


@dataclass(frozen=True, slots=True)
class TurnView:
    number: int
    outcome: str
    headline: str
    think: str
    prompt: Markup
    reply: str
    error: str
    detail: str
    reward: float | None
    terms: Sequence[TermRow]


@dataclass(frozen=True, slots=True)
class Card:
    arm: str
    arm_label: str
    kind: str
    kind_label: str
    task_type: str
    uid: str
    instruction: str
    gain: float | None
    final: float | None
    frames: Sequence[Frame]
    turns: Sequence[TurnView]


def choose(
    arms: Mapping[str, Sequence[Episode]], accept_at: float, *, per_kind: int = 5
) -> list[tuple[str, Episode]]:
    """Up to `per_kind` episodes of each kind for each arm, and the same tasks from every arm.

    Taken in the order of their groups' names, not by how well they look.
    """
    groups: dict[str, None] = {}
    for episodes in arms.values():
        taken: dict[str, int] = defaultdict(int)
        for episode in sorted(episodes, key=lambda e: (e.group not in groups, e.group)):
            kind = kind_of(episode, accept_at)
            if taken[kind] < per_kind:
                taken[kind] += 1
                groups[episode.group] = None
    return [
        (arm, episode)
        for group in groups
        for arm, episodes in arms.items()
        for episode in episodes
        if episode.group == group
    ]


def card(arm: str, episode: Episode, accept_at: float) -> Card:
    kind = kind_of(episode, accept_at)
    gain = None
    if episode.first is not None and episode.final is not None:
        gain = episode.final.scores.overall - episode.first.scores.overall
    return Card(
        arm=arm,
        arm_label=_arm_label(arm),
        kind=kind,
        kind_label=KINDS[kind],
        task_type=episode.task.task_type,
        uid=episode.uid,
        instruction=episode.task.instruction,
        gain=gain,
        final=episode.final.scores.overall if episode.final is not None else None,
        frames=_strip(episode),
        turns=[_turn_view(turn) for turn in episode.turns],
    )


def picture(image: RGB) -> str:
    """An image as a PNG data URI, shrunk to fit a page."""
    shown = Image.fromarray(np.asarray(image))
    shown.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    shown.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def prompt_change(old: str, new: str) -> Markup:
    """The new prompt with its added words marked and the dropped ones struck out."""
    before, after = old.split(), new.split()
    parts: list[Markup] = []
    for tag, a, b, c, d in difflib.SequenceMatcher(a=before, b=after, autojunk=False).get_opcodes():
        if tag in ("replace", "delete"):
            parts.append(Markup("<del>{}</del>").format(" ".join(before[a:b])))
        if tag in ("replace", "insert"):
            parts.append(Markup("<ins>{}</ins>").format(" ".join(after[c:d])))
        if tag == "equal":
            parts.append(escape(" ".join(after[c:d])))
    return Markup(" ").join(parts)


def _strip(episode: Episode) -> list[Frame]:
    """Source, first edit, and the edit after each turn that made one."""
    frames = [Frame("source", picture(episode.task.source))]
    turns = episode.turns
    if episode.first_edit is not None:
        first = episode.first.scores if episode.first else None
        frames.append(Frame("edit 0", picture(episode.first_edit), first, _guess(turns, 0)))
    for position, turn in enumerate(turns):
        if turn.outcome is Outcome.OK and not turn.kept and turn.after is not None:
            frames.append(
                Frame(
                    f"edit {turn.index + 1}",
                    picture(turn.edited),
                    turn.after.scores,
                    _guess(turns, position + 1),
                )
            )
    return frames


def _guess(turns: Sequence[Turn], position: int) -> Scores | None:
    critique = turns[position].critique if position < len(turns) else None
    return critique.scores if critique else None


def _turn_view(turn: Turn) -> TurnView:
    critique = turn.critique
    if critique is None:
        headline = f"malformed: {turn.error}" if turn.error else str(turn.outcome).replace("_", " ")
    elif not turn.outcome.valid:
        headline = str(turn.outcome).replace("_", " ")
    elif turn.kept:
        headline = "accepted the edit" if turn.end == "accepted" else "kept the edit"
    else:
        headline = "asked for another edit"
    return TurnView(
        number=turn.index + 1,
        outcome=str(turn.outcome),
        headline=headline,
        think=critique.think if critique else "",
        prompt=prompt_change(turn.prompt, critique.answer) if critique else Markup(""),
        reply=turn.reply,
        error=str(turn.error) if turn.error else "",
        detail=turn.detail,
        reward=turn.reward.total if turn.reward else None,
        terms=_terms(turn.reward),
    )


def _arm_label(arm: str) -> str:
    return "Failures in training" if arm == TRAINING else label(arm)


def _terms(reward: RewardBreakdown | None) -> list[TermRow]:
    """Terms that count first, the merely logged ones after."""
    if reward is None:
        return []
    rows = [TermRow(name, value, reward.weights.get(name, 0.0)) for name, value in reward.terms.items()]
    return sorted(rows, key=lambda row: row.weight == 0)


def kinds_present(cards: Iterable[Card]) -> list[tuple[str, str, int]]:
    """(kind, label, count) of the kinds there are, in the order of `KINDS`."""
    counts: dict[str, int] = defaultdict(int)
    for shown in cards:
        counts[shown.kind] += 1
    return [(kind, name, counts[kind]) for kind, name in KINDS.items() if counts[kind]]


def arms_present(cards: Iterable[Card]) -> list[tuple[str, str, int]]:
    counts: dict[str, int] = defaultdict(int)
    for shown in cards:
        counts[shown.arm] += 1
    return [(arm, _arm_label(arm), count) for arm, count in counts.items()]
