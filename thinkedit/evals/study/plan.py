"""What the study asks, and what has to be trained and played to answer it.

Published figures are those of EditThinker (arXiv 2512.05965v1), its ablations on GEdit-Bench-EN.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest

from thinkedit.actors.inference.records import Mode

BASE, SFT, RL = "base", "sft", "rl"
EDITS = (1, 2, 4, 6, 8)
MANY_TURNS = max(EDITS) - 1  # critiques


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A GRPO run from the SFT model of its seed. overrides: on top of the study's recipe."""

    name: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One thinker at work on the held-out tasks.

    name: unique, and the name of its file. thinker: `base`, `sft`, the name of a training or of a
    scripted expert. turns: critiques at most. overrides: of the parts it is played with.
    share: of `eval.tasks`, for editors that take long.
    """

    name: str
    thinker: str
    mode: Mode = Mode.WHILE
    turns: int = 2
    overrides: tuple[str, ...] = ()
    share: float = 1.0

    def tasks(self, all_tasks: int) -> int:
        """How many of `eval.tasks` it plays."""
        return max(1, round(all_tasks * self.share))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of a table.

    edits: that the thinker could make at most, the first one included; None: as many as the cell had.
    paper: O that the paper reports for the like, on GEdit-Bench with FLUX.1-Kontext-dev.
    """

    label: str
    cell: str
    edits: int | None = None
    paper: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """title: as a question. paper: what the paper reports, in our words.

    against: labels of rows that each row after them is compared with.
    """

    key: str
    title: str
    paper: str
    rows: tuple[Row, ...]
    against: tuple[str, ...] = ()


# One advantage for all tokens of a reply, scaled by its group's deviation, and nothing beside the reward.
PLAIN_GRPO = (
    "grpo.advantage.credit=reply",
    "grpo.advantage.think_weight=1.0",
    "grpo.advantage.answer_weight=1.0",
    "grpo.advantage.shared_prefix=false",
    "grpo.advantage.scale=group_std",
    "grpo.rehearsal.batch_size=0",
    "grpo.interpolation=1.0",
)
_BEFORE_REWARDS = "SFT, before any reward"
_REWARDS_AGAINST = (_BEFORE_REWARDS, "released")
REWARDS = ("released", "calibrated", "balanced", "paper")
TRAININGS = (
    Training(name=RL),
    *(
        Training(name=f"rl_{reward}", overrides=(f"reward={reward}",))
        for reward in ("balanced", "released", "paper")
    ),
    Training(name="rl_one_step", overrides=("episode.max_turns=1",)),
    *(Training(name=f"plain_{reward}", overrides=(f"reward={reward}", *PLAIN_GRPO)) for reward in REWARDS),
)


def _edits(count: int) -> str:
    return f"{count} edit{'s' if count > 1 else ''}"


_DIFFUSION = ("editor=small_diffusion",)
CELLS = (
    Cell(name="base", thinker=BASE, turns=MANY_TURNS),
    Cell(name="sft", thinker=SFT, turns=MANY_TURNS),
    Cell(name="rl", thinker=RL, turns=MANY_TURNS),
    Cell(name="rl_before", thinker=RL, mode=Mode.BEFORE, turns=1),
    Cell(name="rl_before_while", thinker=RL, mode=Mode.BEFORE_WHILE),
    Cell(name="naive_expert", thinker="naive_expert", turns=MANY_TURNS),
    Cell(name="naive_before", thinker="naive_expert", mode=Mode.BEFORE, turns=1),
    Cell(name="naive_before_while", thinker="naive_expert", mode=Mode.BEFORE_WHILE),
    Cell(name="aware_expert", thinker="aware_expert", turns=MANY_TURNS),
    *(Cell(name=f"rl_{reward}", thinker=f"rl_{reward}") for reward in ("balanced", "released", "paper")),
    *(Cell(name=f"plain_{reward}", thinker=f"plain_{reward}") for reward in REWARDS),
    Cell(name="rl_one_step", thinker="rl_one_step", turns=MANY_TURNS),
    Cell(name="diffusion_sft", thinker=SFT, overrides=_DIFFUSION, share=0.25),
    Cell(name="diffusion_rl", thinker=RL, overrides=_DIFFUSION, share=0.25),
    Cell(name="diffusion_naive", thinker="naive_expert", overrides=_DIFFUSION, share=0.25),
)

QUESTIONS = (
    Question(
        key="stages",
        title="What does each stage of training add?",
        paper="An untrained thinker adds nothing, SFT most of the gain, RL a little more.",
        rows=(
            Row(label="the editor alone", cell="sft", edits=1, paper=6.18),
            Row(label="base thinker", cell="base", edits=3, paper=6.23),
            Row(label="SFT", cell="sft", edits=3, paper=6.93),
            Row(label="SFT and RL", cell="rl", edits=3, paper=7.02),
        ),
    ),
    Question(
        key="modes",
        title="Think before the edit, while editing, or both?",
        paper="For its expert before helps, while helps more, and both are no better than while alone.",
        rows=(  # the paper asked its expert
            Row(label="no thinking", cell="naive_expert", edits=1, paper=6.18),
            Row(label="expert with good practice, before", cell="naive_before", paper=6.82),
            Row(label="expert with good practice, while", cell="naive_expert", edits=3, paper=7.19),
            Row(label="expert with good practice, before and while", cell="naive_before_while", paper=7.06),
            Row(label="trained thinker, before", cell="rl_before"),
            Row(label="trained thinker, while", cell="rl", edits=3),
            Row(label="trained thinker, before and while", cell="rl_before_while"),
        ),
        against=("trained thinker, before", "trained thinker, while"),
    ),
    Question(
        key="turns",
        title="How many edits pay?",
        paper="The second edit brings most, and the score still rises a little up to the eighth.",
        rows=tuple(
            Row(label=f"{who}, {_edits(edits)}", cell=cell, edits=edits, paper=paper)
            for cell, who, published in (
                ("sft", "SFT", ()),
                ("rl", "SFT and RL", (6.18, 6.90, 6.94, 7.01, 7.03)),
                ("aware_expert", "expert who knows the editor", (6.18, 6.95, 7.13, 7.16, 7.30)),
            )
            for edits, paper in zip_longest(EDITS, published)
        ),
    ),
    Question(
        key="experts",
        title="How much does a stronger expert help?",
        paper="The stronger the model that is asked as expert, the better the edits: 6.80 to 7.19.",
        rows=(
            Row(label="base thinker", cell="base", edits=3),
            Row(label="expert with good practice", cell="naive_expert", edits=3, paper=6.80),
            Row(label="expert who knows the editor", cell="aware_expert", edits=3, paper=7.19),
            Row(label="trained thinker", cell="rl", edits=3, paper=7.02),
        ),
    ),
    Question(
        key="rewards",
        title="Which reward keeps the critic honest and the picture clean?",
        paper="It has one reward. The released code's differs from the one that the paper describes.",
        against=_REWARDS_AGAINST,
        rows=(
            Row(label=_BEFORE_REWARDS, cell="sft", edits=3),
            Row(label="released", cell="rl_released"),
            Row(label="calibrated", cell="rl", edits=3),
            Row(label="balanced", cell="rl_balanced"),
            Row(label="paper", cell="rl_paper"),
        ),
    ),
    Question(
        key="plain",
        title="And where GRPO does nothing else for the critic?",
        paper="Its GRPO has one advantage for all tokens of a reply; it says nothing of the critic's error.",
        against=_REWARDS_AGAINST,
        rows=(
            Row(label=_BEFORE_REWARDS, cell="sft", edits=3),
            *(Row(label=reward, cell=f"plain_{reward}") for reward in REWARDS),
        ),
    ),
    Question(
        key="horizon",
        title="Train on one step, or on whole episodes?",
        paper="The released code trains on single steps from stored edits, and uses many turns.",
        rows=tuple(
            Row(label=f"trained on {who}, {_edits(edits)}", cell=cell, edits=edits)
            for cell, who in (("rl_one_step", "one step"), ("rl", "two"))
            for edits in (2, 3, 5, 8)
        ),
    ),
    Question(
        key="diffusion",
        title="Does it carry over to an editor that it was not trained with?",
        paper="One thinker raises several editors; they were all seen in its training data.",
        rows=(
            Row(label="small diffusion editor alone", cell="diffusion_sft", edits=1),
            Row(label="SFT", cell="diffusion_sft"),
            Row(label="SFT and RL", cell="diffusion_rl"),
            Row(label="expert with good practice", cell="diffusion_naive"),
        ),
        against=("small diffusion editor alone", "SFT"),
    ),
)
