"""Duplicates, balance and split over a handful of rows, every number worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from trajectory_files import overall

from thinkedit.data.formats.lines import Line
from thinkedit.data.index import Index
from thinkedit.data.rules import balance, duplicates, split
from thinkedit.data.rules.fates import Fate
from thinkedit.data.rules.summaries import Summary, pair_key, summary, variance


def row(uid: str = "t", *, cell: tuple[str, int] = ("add", 5), **fields: object) -> Summary:
    base = Summary(
        n=0,
        trajectory_id=uid,
        source="s",
        pair="p",
        task_type=cell[0],
        best=float(cell[1]),
        lowest=1.0,
        variance=1.0,
        steps=2,
        sft_steps=2,
        place=uid,
    )
    return base._replace(**fields)


# --- summaries


def test_the_variance_is_that_of_the_population() -> None:
    # O = 2, 4, 9: mean 5, squares 9 + 1 + 16 = 26, 26 / 3
    assert variance([2, 4, 9]) == pytest.approx(26 / 3, abs=1e-9)
    assert variance([7]) == 0.0


def test_a_summary_is_of_the_truncated_trajectory() -> None:
    found = summary(overall(2, 4, 9), n=3, source="hash", sft_steps=2, seed=0)
    assert (found.best, found.lowest, found.steps, found.level) == (9.0, 2.0, 3, 9)


@pytest.mark.parametrize(("best", "level"), [(6.49, 6), (6.5, 7), (7.5, 8), (0.4, 0), (10, 10)])
def test_levels_are_rounded_half_up(best: float, level: int) -> None:
    assert row(best=best).level == level


def test_place_follows_from_seed_and_id_alone() -> None:
    def place(seed: int, uid: str, n: int) -> str:
        return summary(overall(2, 4, uid=uid), n=n, source="s", sft_steps=0, seed=seed).place

    assert place(0, "a", 1) == place(0, "a", 2)
    assert len({place(0, "a", 1), place(1, "a", 1), place(0, "b", 1)}) == 3


# --- duplicates


def test_white_space_makes_no_other_instruction_and_case_does() -> None:
    assert pair_key("s", "make it  red\n") == pair_key("s", "make it red")
    assert pair_key("s", "change the sign to STOP") != pair_key("s", "change the sign to stop")
    assert pair_key("s", "make it red") != pair_key("s", "make it blue")
    assert pair_key("s", "make it red") != pair_key("other", "make it red")


def test_the_first_of_each_pair_stays() -> None:
    rows = [row("a", pair="1"), row("b", pair="1"), row("c", pair="1"), row("d", pair="2")]
    assert [r.trajectory_id for r in duplicates.duplicates(rows)] == ["b", "c"]


def test_the_best_stays_then_the_shortest_then_the_first_by_id(tmp_path: Path) -> None:
    rows = [
        row("e", best=8.0, steps=2),
        row("d", best=8.0, steps=2),
        row("c", best=8.0, steps=3),
        row("b", best=9.0, steps=4),
        row("a", best=7.0, steps=1),
    ]
    with Index(tmp_path / "index") as index:
        for n, each in enumerate(rows):
            index.add(Line(tmp_path, n, 0, b""), each.trajectory_id, n, each._replace(n=n))
        ordered = list(index.rows(duplicates.ORDER))
    assert [r.trajectory_id for r in ordered] == ["b", "d", "e", "c", "a"]
    assert [r.trajectory_id for r in duplicates.duplicates(ordered)] == ["d", "e", "c", "a"]


# --- balance


@pytest.mark.parametrize(
    ("counts", "target", "kept"),
    [
        # 10 + 4 + 1 = 15. Height 4 leaves 4 + 4 + 1 = 9; height 5 leaves 10.
        ((10, 4, 1), 9, (4, 4, 1)),
        ((10, 4, 1), 10, (5, 4, 1)),
        # Height 3 leaves 3 + 3 + 1 = 7, height 4 leaves 9: one is missing, from either of the cut two.
        ((10, 4, 1), 7, (3, 3, 1)),
        ((10, 4, 1), 15, (10, 4, 1)),
        ((10, 4, 1), 99, (10, 4, 1)),
        ((10, 4, 1), 0, (0, 0, 0)),
        ((5, 5, 5), 6, (2, 2, 2)),
    ],
)
def test_cells_are_cut_to_one_height(counts: Sequence[int], target: int, kept: Sequence[int]) -> None:
    cells = {("add", level): count for level, count in enumerate(counts)}
    assert tuple(balance.caps(cells, target, seed=0).values()) == tuple(kept)


def test_what_is_missing_goes_to_cut_cells_one_each() -> None:
    cells = {("add", 1): 10, ("add", 2): 4, ("style", 3): 1}
    found = {seed: balance.caps(cells, 8, seed) for seed in range(20)}
    # Height 3 leaves 7; the eighth comes from one of the two cells that are higher than 3.
    assert {tuple(kept.values()) for kept in found.values()} == {(4, 3, 1), (3, 4, 1)}
    assert found[3] == balance.caps(dict(reversed(cells.items())), 8, seed=3)


def test_one_is_still_drawn_when_the_target_is_below_the_cells() -> None:
    cells = {("add", level): 1 for level in range(5)}
    assert sorted(balance.caps(cells, 2, seed=0).values()) == [0, 0, 0, 1, 1]


def test_a_cell_is_filled_in_the_order_given() -> None:
    a, b = ("add", 5), ("style", 5)
    rows = [row("1", cell=a), row("2", cell=a), row("3", cell=a), row("4", cell=b)]
    fits = balance.filled(rows, {a: 2, b: 0})
    assert [(r.trajectory_id, fit) for r, fit in fits] == [
        ("1", True),
        ("2", True),
        ("3", False),
        ("4", False),
    ]


# --- split


def test_theta_leaves_the_wanted_number_of_candidates() -> None:
    rows = [row(str(v), variance=v) for v in (9.0, 4.0, 4.0, 1.0, 0.0)]
    assert split.threshold(rows, 1) == 9.0
    assert split.threshold(rows, 2) == split.threshold(rows, 3) == 4.0
    assert split.threshold(rows, 4) == 1.0
    assert split.threshold(rows, 5) == 1.0  # the fifth doesn't vary
    assert split.threshold(rows, 0) == 9.0  # nothing is above it, so all are stable
    assert split.threshold([], 3) == split.threshold(rows[4:], 3) == 0.0


@pytest.mark.parametrize(
    ("theta", "pool", "taken"),
    [
        (4.0, 2, "ab"),  # b and c tie at theta: the first in the seed's order fills the pool
        (4.0, 3, "abc"),
        (4.0, None, "abc"),  # theta was given: all that reach it
        (5.0, None, "a"),
        (0.0, None, "abcd"),  # e doesn't vary at all
        (0.0, 5, "abcd"),
        (9.0, 0, ""),
    ],
)
def test_candidates_reach_theta_and_fill_the_pool(theta: float, pool: int | None, taken: str) -> None:
    rows = [row(uid, variance=v) for uid, v in zip("abcde", (9.0, 4.0, 4.0, 1.0, 0.0), strict=True)]
    assert "".join(r.trajectory_id for r in split.candidates(rows, theta, pool)) == taken


def test_no_source_image_is_in_both_sets() -> None:
    rows = [
        row("a", source="1", fate=Fate.RL),
        row("b", source="1"),
        row("c", source="1"),
        row("d", source="2"),
        row("e", source="3", fate=Fate.RL),
        row("f", source="3", fate=Fate.RL),
    ]
    assert [r.trajectory_id for r in split.sharing_a_source(rows)] == ["b", "c"]


@pytest.mark.parametrize(
    ("variance", "lowest", "sft_steps", "fate"),
    [
        (1.0, 2.0, 1, None),  # stable
        (2.0, 2.0, 1, None),  # at theta: still stable
        (2.1, 2.0, 1, Fate.UNSTABLE),
        (2.1, 8.0, 1, None),  # varied, but good throughout
        (2.1, 7.9, 1, Fate.UNSTABLE),
        (1.0, 2.0, 0, Fate.NO_SFT_STEP),
    ],
)
def test_sft_takes_what_is_stable_or_good(
    variance: float, lowest: float, sft_steps: int, fate: Fate | None
) -> None:
    asked = row(variance=variance, lowest=lowest, sft_steps=sft_steps)
    assert split.sft_refusal(asked, theta=2.0, good_at=8.0) == fate
