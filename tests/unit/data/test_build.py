"""Whole builds over real files: what is written, that it repeats, and what is refused."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import pvariance
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image
from trajectory_files import overall, picture, trajectory, write

from thinkedit.configs.schema import DataConfig
from thinkedit.data.build import build
from thinkedit.data.examine import Exclusion
from thinkedit.data.figures import Figures
from thinkedit.data.formats.chat import read_chat_parquet, read_sharegpt
from thinkedit.data.formats.records import read_records
from thinkedit.data.formats.reference import read_reference
from thinkedit.data.formats.trajectories import Trajectory, overalls, read_trajectories
from thinkedit.data.formats.verl import read_verl
from thinkedit.data.rules.fates import Fate, Fault
from thinkedit.envs.protocol import Protocol
from thinkedit.errors import ConfigError, DataError
from thinkedit.types import Critique

PROTOCOL = Protocol()
ALL = DataConfig(balance_share=1.0, rl_trajectories=0)
"""Everything that is fit goes to SFT."""


def built(folder: Path, source: Path, config: DataConfig = ALL, *, seed: int = 0) -> Figures:
    return build(source, folder, config, PROTOCOL, seed=seed)


def many(count: int, *, sources: int, seed: int = 0) -> list[Trajectory]:
    """Trajectories of one to four edits whose scores wander upwards."""
    rng = random.Random(seed)
    made = []
    for n in range(count):
        level, marks = rng.gauss(5, 2), []
        for _ in range(rng.choice((1, 2, 3, 4))):
            level += rng.gauss(0.5, 1.5)
            marks.append(tuple(round(min(10.0, max(0.0, level + rng.gauss(0, 1))), 1) for _ in range(2)))
        made.append(
            trajectory(
                *marks,
                uid=f"t{n}",
                satisfied=rng.random() < 0.7,
                task_type=rng.choice(("add", "style", "remove")),
                instruction=f"change number {n % 50}",
                source=f"sources/{rng.randrange(sources)}.png",
            )
        )
    return made


# --- small cases by hand


def test_a_trajectory_becomes_its_samples(tmp_path: Path) -> None:
    source = write(tmp_path / "t.jsonl", [overall(2, 4, 8, 6, uid="a")])
    figures = built(tmp_path / "out", source)
    # Best is 8 at edit 2. Edits 0 and 1 refine; edit 2 is where the expert went on: no stop.
    records = list(read_records(tmp_path / "out/records/sft.jsonl"))
    assert [(r.uid, r.kind, r.step, r.n_steps, r.score.overall) for r in records] == [
        ("a/0", "refine", 0, 3, 2.0),
        ("a/1", "refine", 1, 3, 4.0),
    ]
    assert [r.answer for r in records] == [
        "paint the fence white, attempt 1",
        "paint the fence white, attempt 2",
    ]
    assert figures.faults == {Fault.NOT_FINISHED: 1}
    assert figures.fates == {Fate.SFT: 1}


def test_an_accepted_best_edit_becomes_a_stop(tmp_path: Path) -> None:
    source = write(tmp_path / "t.jsonl", [overall(2, 8, uid="a")])
    built(tmp_path / "out", source)
    *_, stop = read_records(tmp_path / "out/records/sft.jsonl")
    assert (stop.kind, stop.answer) == ("stop", stop.prompt)


def test_for_rl_every_edit_up_to_the_best_is_a_state(tmp_path: Path) -> None:
    source = write(tmp_path / "t.jsonl", [overall(2, 4, 8, 6, uid="a")])
    config = replace(ALL, rl_trajectories=1)
    built(tmp_path / "out", source, config)
    states = list(read_records(tmp_path / "out/records/rl.jsonl"))
    assert [(r.uid, r.score.overall, r.kind, r.answer) for r in states] == [
        ("a/0", 2.0, None, None),
        ("a/1", 4.0, None, None),
        ("a/2", 8.0, None, None),
    ]
    assert (tmp_path / "out/records/sft.jsonl").read_bytes() == b""


def test_the_most_varied_goes_to_rl(tmp_path: Path) -> None:
    # Variances over the truncated trajectories: (2, 4) 1; (2, 8) 9; (4, 5) 0.25; (3, 3.5) 0.0625.
    # One is wanted from a pool of one: theta is the highest, 9.
    trajectories = [
        overall(2, 4, uid="a", source="a.png"),
        overall(2, 8, uid="b", source="b.png"),
        overall(4, 5, uid="c", source="c.png"),
        overall(3, 3.5, uid="d", source="d.png"),
    ]
    source = write(tmp_path / "t.jsonl", trajectories)
    figures = built(tmp_path / "out", source, replace(ALL, rl_trajectories=1, rl_pool=1.0))
    assert figures.selection is not None
    assert figures.selection.theta == 9.0
    assert {r.trajectory_id for r in read_records(tmp_path / "out/records/rl.jsonl")} == {"b"}
    assert {r.trajectory_id for r in read_records(tmp_path / "out/records/sft.jsonl")} == {"a", "c", "d"}


def test_equal_variances_fill_the_rl_set(tmp_path: Path) -> None:
    # All vary by ((5 - 6.5)^2 + (8 - 6.5)^2) / 2 = 2.25. RL takes a seventh of 100, drawn by the seed.
    equal = [overall(5, 8, uid=f"t{n}", source=f"{n}.png") for n in range(100)]
    source = write(tmp_path / "t.jsonl", equal)
    for seed in (0, 1):
        figures = built(tmp_path / f"out{seed}", source, DataConfig(balance_share=1.0), seed=seed)
        assert figures.selection is not None
        assert (figures.selection.theta, figures.selection.candidates) == (2.25, 21)  # 1.5 times 14
        assert figures.fates == {Fate.RL: 14, Fate.SFT: 86}
    assert _ids(tmp_path / "out0", "rl") != _ids(tmp_path / "out1", "rl")


@pytest.mark.parametrize("rules", [{}, {"rl_min_variance": 0.0}])
def test_what_does_not_vary_is_nothing_for_rl(tmp_path: Path, rules: dict[str, float]) -> None:
    # A tie is truncated to one edit: variance 0.
    equal = [overall(5, 5, uid=f"t{n}", source=f"{n}.png") for n in range(10)]
    figures = built(tmp_path / "out", write(tmp_path / "t.jsonl", equal), DataConfig(**rules))  # type: ignore[arg-type]
    assert figures.selection is not None
    assert figures.selection.candidates == 0
    assert Fate.RL not in figures.fates


def test_every_fate_by_hand(tmp_path: Path) -> None:
    trajectories = [
        trajectory(None, (9, 9), uid="ungraded", source="0.png"),
        overall(9, uid="single", source="1.png"),
        overall(5, 4, uid="worse", source="2.png"),
        overall(5, 6, uid="benchmark", source="3.png"),
        overall(5, 6, uid="short", source="4.png"),
        overall(5, 7, uid="better twin", source="4.png"),
        overall(1, 9, uid="varied", source="5.png"),
        overall(5, 5.5, uid="same source as varied", source="5.png", instruction="something else"),
        overall(6, 6, uid="tie", source="6.png"),  # k = 0, where the expert wanted more
        overall(4, 4.5, uid="fine", source="7.png"),
        overall(2, 8, uid="too varied for sft", source="8.png"),
        overall(2, 8, uid="first of its cell", source="9.png", task_type="style"),
    ]
    source = write(tmp_path / "t.jsonl", trajectories)
    config = replace(ALL, exclude_images=[str(tmp_path / "3.png")], rl_trajectories=1, rl_min_variance=1.5)
    # Variances above 1.5: "varied" has 16, the two of (2, 8) have 9. RL takes one of them, each in a
    # cell of its own, so that the seed draws which.
    figures = built(tmp_path / "out", source, config, seed=_seed_that_draws(("add", 9)))
    fates = {row["trajectory_id"]: row["reason"] for row in _lines(tmp_path / "out/dropped.jsonl")}
    assert fates == {
        "ungraded": "ungraded",
        "single": "single_edit",
        "worse": "not_improved",
        "benchmark": "benchmark",
        "short": "duplicate",
        "same source as varied": "source_in_rl",
        "tie": "no_sft_step",
        "too varied for sft": "unstable",
        "first of its cell": "unstable",
    }
    assert _ids(tmp_path / "out", "rl") == {"varied"}
    assert _ids(tmp_path / "out", "sft") == {"better twin", "fine"}
    assert sum(figures.fates.values()) == len(trajectories) == figures.trajectories


def test_balance_cuts_the_fullest_cell(tmp_path: Path) -> None:
    # Cells: (add, 6) 4, (style, 6) 1. Height 2 leaves 2 + 1 = 3.
    trajectories = [overall(5, 6, uid=f"add{n}", source=f"{n}.png") for n in range(4)]
    trajectories.append(overall(5, 6, uid="style", source="s.png", task_type="style"))
    source = write(tmp_path / "t.jsonl", trajectories)
    figures = built(tmp_path / "out", source, replace(ALL, target_trajectories=3))
    assert figures.selection is not None
    assert figures.selection.balanced == {("add", 6): 2, ("style", 6): 1}
    assert figures.fates == {Fate.UNBALANCED: 2, Fate.SFT: 3}


def test_sft_takes_the_good_then_the_most_stable(tmp_path: Path) -> None:
    # All end at 8 or 9 and are of one task. (8, 9): good throughout. (6, 8) varies by 1, (7, 8) by 0.25.
    trajectories = [
        overall(6, 8, uid="varied", source="0.png"),
        overall(7, 8, uid="stable", source="1.png"),
        overall(8, 8.4, uid="good", source="2.png"),
    ]
    source = write(tmp_path / "t.jsonl", trajectories)
    config = replace(ALL, rl_min_variance=5.0, sft_trajectories=2)
    built(tmp_path / "out", source, config)
    assert _ids(tmp_path / "out", "sft") == {"good", "stable"}


# --- larger ones


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("raw") / "t.jsonl", many(400, sources=250))


@pytest.fixture(scope="module")
def out(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "out"
    built(folder, raw, DataConfig(), seed=3)
    return folder


def test_the_sets_share_no_trajectory_and_no_source(out: Path) -> None:
    sets = {split: list(read_records(out / f"records/{split}.jsonl")) for split in ("sft", "rl")}
    assert min(len(records) for records in sets.values()) > 30
    for key in (lambda r: r.trajectory_id, lambda r: r.source_image.sha256):
        assert not {key(r) for r in sets["sft"]} & {key(r) for r in sets["rl"]}


def test_every_format_holds_the_same(out: Path) -> None:
    sft = list(read_records(out / "records/sft.jsonl"))
    rl = list(read_records(out / "records/rl.jsonl"))
    chats = list(read_sharegpt(out / "sft_train.json"))
    assert [(c.messages, c.images) for c in chats] == [
        (c.messages, c.images) for c in read_chat_parquet(out / "verl/sft.parquet")
    ]
    assert [c.images for c in chats] == [(r.source_image.path, r.edited_image.path) for r in sft]
    assert list(read_verl(out / "verl/rl.parquet")) == rl
    assert [(r.instruction, r.prompt, r.score.semantic) for r in read_reference(out / "rl_train.jsonl")] == [
        (r.instruction, r.prompt, r.score.semantic) for r in rl
    ]


def test_every_reply_to_learn_is_well_formed(out: Path) -> None:
    records = list(read_records(out / "records/sft.jsonl"))
    kinds = Counter()
    for record, chat in zip(records, read_sharegpt(out / "sft_train.json"), strict=True):
        critique = PROTOCOL.parse(chat.messages[1].content, record.prompt)
        assert isinstance(critique, Critique)
        assert critique.answer == record.answer
        assert (critique.answer == record.prompt) == (record.kind == "stop")
        kinds[record.kind] += 1
    assert min(kinds["refine"], kinds["stop"]) > 10


def test_the_report_adds_up(out: Path) -> None:
    report = json.loads((out / "report.json").read_text())
    sft, rl = (list(read_records(out / f"records/{split}.jsonl")) for split in ("sft", "rl"))
    assert sum(report["fates"].values()) == report["trajectories"] == 400
    assert report["overall"]["sft"]["n"] == len(sft)
    assert report["overall"]["rl"]["n"] == report["records"]["rl/state"] == len(rl)
    assert report["overall"]["sft"]["mean"] == pytest.approx(sum(r.score.overall for r in sft) / len(sft))
    tables = report["selection"]
    count = {
        name: sum(map(sum, tables[name].values())) for name in ("kept", "distinct", "balanced", "rl", "sft")
    }
    fates = Counter(report["fates"])
    assert count["kept"] - count["distinct"] == fates["duplicate"]
    assert count["distinct"] - count["balanced"] == fates["unbalanced"]
    assert count["balanced"] == tables["target"] == round(0.9 * count["distinct"])
    assert count["rl"] == tables["rl_quota"] == round(count["balanced"] / 7)
    assert count["sft"] == fates["sft"]
    assert sum(report["steps"].values()) == sum(report["variance"]["counts"]) == count["kept"]
    page = (out / "report.html").read_text()
    assert "no later edit as good as the first" in page
    assert f"{fates['not_improved']:,}" in page


def test_rl_varies_by_theta_and_sft_does_not_or_is_good(raw: Path, out: Path) -> None:
    theta = json.loads((out / "report.json").read_text())["selection"]["theta"]
    assert theta > 0
    scores = {}  # up to the best edit; the SFT set lacks samples that sanity left out
    for located in read_trajectories(raw):
        found = overalls(located.trajectory)
        scores[located.trajectory.trajectory_id] = found[: found.index(max(found)) + 1]
    varied = {uid for uid, found in scores.items() if round(pvariance(found), 9) >= theta}
    assert _ids(out, "rl") <= varied
    unstable = _ids(out, "sft") & varied
    at_theta = {uid for uid in unstable if round(pvariance(scores[str(uid)]), 9) == theta}
    assert all(min(scores[str(uid)]) >= 8 for uid in unstable - at_theta)


def test_the_same_seed_gives_the_same_bytes_in_any_order(raw: Path, out: Path, tmp_path: Path) -> None:
    lines = raw.read_bytes().splitlines(keepends=True)
    random.Random(1).shuffle(lines)
    half = raw.parent / "shuffled"
    half.mkdir()
    for name, part in (("a.jsonl", lines[:150]), ("b.jsonl", lines[150:])):
        (half / name).write_bytes(b"".join(_absolute(line, raw.parent) for line in part))
    built(tmp_path / "out", half, DataConfig(), seed=3)
    names = ["report.json", "dropped.jsonl", "records/sft.jsonl", "records/rl.jsonl"]
    for name in (*names, "sft_train.json", "rl_train.jsonl", "verl/sft.parquet", "verl/rl.parquet"):
        assert (tmp_path / "out" / name).read_bytes() == (out / name).read_bytes(), name


def test_another_seed_gives_another_draw(raw: Path, out: Path, tmp_path: Path) -> None:
    built(tmp_path / "out", raw, DataConfig(), seed=4)
    assert _ids(tmp_path / "out", "sft") != _ids(out, "sft")


# --- benchmarks


def test_near_copies_of_benchmark_pictures_are_left_out(tmp_path: Path) -> None:
    trajectories = [overall(5, 6, uid=f"{n}", source=f"{n}.png", instruction=f"{n}") for n in range(3)]
    source = write(tmp_path / "t.jsonl", trajectories)
    blobs = [_blobs(seed) for seed in range(3)]
    for n, image in enumerate(blobs):
        image.save(tmp_path / f"{n}.png")
    folder = tmp_path / "bench" / "deep" / "deeper"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("no picture")
    blobs[1].resize((77, 51)).save(folder / "ONE.JPG", quality=70)  # another size, format and quality
    figures = built(tmp_path / "out", source, replace(ALL, exclude_images=[str(tmp_path / "bench")]))
    assert figures.fates == {Fate.BENCHMARK: 1, Fate.SFT: 2}
    assert [row["trajectory_id"] for row in _lines(tmp_path / "out/dropped.jsonl")] == ["1"]


@pytest.mark.parametrize("place", ["empty", "absent"])
def test_a_benchmark_folder_without_pictures_is_an_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=rf"data\.exclude_images: .*{place} holds no image file"):
        Exclusion([str(tmp_path / place)], 4)


# --- refusals


def test_an_id_used_twice_names_both_lines(tmp_path: Path) -> None:
    source = write(tmp_path / "t.jsonl", [overall(5, 6, uid=uid) for uid in ("a", "b", "a")])
    with pytest.raises(DataError, match=r"t\.jsonl:3: trajectory_id: 'a' is also the id of .*t\.jsonl:1"):
        built(tmp_path / "out", source)


@pytest.mark.parametrize(
    ("name", "field"), [("source.png", "source_image"), ("edit1.png", r"steps\[1\].image")]
)
def test_a_missing_picture_names_line_and_field(tmp_path: Path, name: str, field: str) -> None:
    source = write(tmp_path / "t.jsonl", [overall(5, 6, uid="a")])
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=rf"t\.jsonl:1: {field}: .*{name}"):
        built(tmp_path / "out", source)


def test_a_picture_that_is_none_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "t.jsonl", [overall(5, 6, uid="a")])
    (tmp_path / "edit0.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"t\.jsonl:1: steps\[0\].image: .*not a readable picture"):
        built(tmp_path / "out", source)


@pytest.mark.parametrize("field", ["source_image", "steps[1].image"])
def test_a_picture_that_changed_since_it_was_collected_is_refused(tmp_path: Path, field: str) -> None:
    source = write(tmp_path / "t.jsonl", [overall(5, 6, uid="a")])
    line = json.loads(source.read_text())
    line["source_sha256"] = hashlib.sha256((tmp_path / "source.png").read_bytes()).hexdigest()
    for step in line["steps"]:
        step["image_sha256"] = hashlib.sha256((tmp_path / step["image"]).read_bytes()).hexdigest()
    source.write_text(json.dumps(line))
    built(tmp_path / "out", source)  # as it was collected
    if field == "source_image":
        line["source_sha256"] = "0" * 64
    else:
        line["steps"][1]["image_sha256"] = "0" * 64
    source.write_text(json.dumps(line))
    with pytest.raises(DataError, match=rf"t\.jsonl:1: {re.escape(field)}: .* is not the picture that was"):
        built(tmp_path / "again", source)


def test_a_failed_build_leaves_no_folder_and_the_next_one_works(tmp_path: Path) -> None:
    source = write(tmp_path / "t.jsonl", [overall(5, 6, uid="a")])
    missing = tmp_path / "edit1.png"
    missing.rename(tmp_path / "away")
    with pytest.raises(DataError):
        built(tmp_path / "out", source)
    assert not (tmp_path / "out").exists()
    (tmp_path / "away").rename(missing)
    built(tmp_path / "out", source)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    source = write(tmp_path / "t.jsonl", [overall(5, 6, uid="a")])
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match="exists"):
        built(tmp_path / "out", source)


def test_only_the_wanted_formats_are_written(tmp_path: Path) -> None:
    source = write(tmp_path / "t.jsonl", [overall(5, 6, uid="a")])
    built(tmp_path / "out", source, replace(ALL, formats=["llamafactory"]))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "sft_train.json",
        "dropped.jsonl",
        "report.html",
        "report.json",
    }


def test_no_trajectories_make_empty_sets(tmp_path: Path) -> None:
    source = tmp_path / "t.jsonl"
    source.write_text("")
    figures = built(tmp_path / "out", source)
    assert figures.trajectories == 0
    assert list(read_verl(tmp_path / "out/verl/rl.parquet")) == []


def test_a_pair_of_equal_pictures_under_two_names_is_one_source(tmp_path: Path) -> None:
    twins = [overall(5, 6, uid="a", source="a.png"), overall(5, 7, uid="b", source="b.png")]
    source = write(tmp_path / "t.jsonl", twins)
    picture(tmp_path / "a.png", 99)
    picture(tmp_path / "b.png", 99)
    figures = built(tmp_path / "out", source)
    assert figures.fates == {Fate.DUPLICATE: 1, Fate.SFT: 1}


def _seed_that_draws(cell: tuple[str, int]) -> int:
    from thinkedit.data.rules.balance import caps

    cells = {("add", 8): 1, ("add", 9): 1, ("style", 8): 1}
    return next(seed for seed in range(100) if caps(cells, 1, seed)[cell])


def _ids(out: Path, split: str) -> set[str | None]:
    return {record.trajectory_id for record in read_records(out / f"records/{split}.jsonl")}


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _absolute(line: bytes, folder: Path) -> bytes:
    """A trajectory's line, moved to another folder."""
    value = json.loads(line)
    value["source_image"] = str(folder / value["source_image"])
    for step in value["steps"]:
        step["image"] = str(folder / step["image"])
    return msgspec.json.encode(value) + b"\n"


def _blobs(seed: int) -> Image.Image:
    """Smooth blobs, as photographs have them."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((120, 90), Image.Resampling.BICUBIC)
