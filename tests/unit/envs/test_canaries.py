"""Canary pairs: the order is really known, and what a judge makes of it is counted honestly."""

import json
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from plain import HalfPainter, raising

from thinkedit.configs.load import load_config
from thinkedit.envs.build import Parts
from thinkedit.envs.canaries import Canaries, read_pairs
from thinkedit.envs.editors.cache import CachedJudge
from thinkedit.envs.services import Services
from thinkedit.envs.world.canaries import KINDS, world_pairs
from thinkedit.envs.world.judge import WorldJudge
from thinkedit.errors import ConfigError, DataError, JudgeRefused
from thinkedit.rewards.judges.base import Judge
from thinkedit.types import RGB, Scores, Verdict


class Blind(WorldJudge):
    """Sees no difference any more, after `good` verdicts."""

    def __init__(self, good: int = 0, fault: Any = None) -> None:
        super().__init__()
        self.good, self.calls, self.fault = good, 0, fault

    def judge(self, source: RGB, edited: RGB, instruction: str) -> Verdict:
        self.calls += 1
        verdict = super().judge(source, edited, instruction)
        if self.calls <= self.good:
            return verdict
        return self.fault(verdict) if self.fault else replace(verdict, scores=Scores(7, 7))


def asked(judge: Judge, pairs: int = 15) -> Canaries:
    return Canaries(list(islice(world_pairs(), pairs)), Services(HalfPainter(), judge, 10, 10))


async def test_the_exact_judge_orders_every_pair_of_the_world() -> None:
    report = await asked(WorldJudge(), 50).ask()
    assert report.accuracy == 1.0
    assert Counter(report.right) == dict.fromkeys(KINDS, 10)
    assert min(report.margins) > 1
    assert report.alarm(1.0) is None


def test_pairs_are_the_same_in_each_process_and_none_is_a_training_picture() -> None:
    one, two = list(islice(world_pairs(), 15)), list(islice(world_pairs(), 15))
    for a, b in zip(one, two, strict=True):
        assert (a.kind, a.instruction) == (b.kind, b.instruction)
        assert all(np.array_equal(getattr(a, k), getattr(b, k)) for k in ("source", "better", "worse"))
    verdict = WorldJudge().judge(one[0].source, one[0].better, one[0].instruction)
    assert verdict.scores == Scores(10, 10)


async def test_a_judge_that_sees_no_difference_is_wrong_every_time_and_alarmed_about() -> None:
    report = await asked(Blind()).ask()
    assert report.metrics() == {
        "judge/canaries/failed": 0.0,
        "judge/canaries/accuracy": 0.0,
        "judge/canaries/margin": 0.0,
    }
    assert "15 of 15 in the wrong order" in (report.alarm(0.8) or "")


async def test_a_pair_without_verdicts_is_in_no_share() -> None:
    report = await asked(Blind(good=20, fault=raising(JudgeRefused("not today")))).ask()
    assert (len(report.right), report.accuracy) == (10, 1.0)
    assert report.metrics()["judge/canaries/failed"] == 5
    assert "JudgeRefused: not today" in (report.alarm(0.8) or "")
    none = await asked(Blind(fault=raising(ZeroDivisionError("bug")))).ask()
    assert none.accuracy is None
    assert none.metrics() == {"judge/canaries/failed": 15.0}
    assert none.alarm(0.0)
    for scores in (Scores("9", 9), Scores(True, 9), Scores(np.float32(9), 9), None):  # type: ignore[arg-type]
        bad = await asked(Blind(fault=lambda verdict, scores=scores: replace(verdict, scores=scores))).ask()
        assert "JudgeError: judge 'world' gave semantic=" in (bad.alarm(0.0) or "")


async def test_a_cache_never_answers_for_the_judge(tmp_path: Path) -> None:
    parts = Parts.from_config(load_config("demo", ["judge.canaries.pairs=5"]))
    judge = Blind(good=10)
    parts = replace(parts, judge=CachedJudge(judge, tmp_path))
    canaries = Canaries.from_parts(parts)
    assert (await canaries.ask()).accuracy == 1.0
    assert (await canaries.ask()).accuracy == 0.0
    assert judge.calls == 20


@pytest.fixture
def own(tmp_path: Path) -> Path:
    for name, value in {"source": 0, "better": 200, "worse": 100, "small": 9}.items():
        size = (4, 4) if name == "small" else (8, 6)
        Image.new("RGB", size, (value,) * 3).save(tmp_path / f"{name}.png")
    return tmp_path / "pairs.jsonl"


GOOD = {"source": "source.png", "better": "better.png", "worse": "worse.png", "instruction": "make it white"}


def test_own_pairs_come_from_a_file(own: Path) -> None:
    dim = json.dumps(GOOD | {"kind": "dim\u2028"}, ensure_ascii=False)
    own.write_text(f"{dim}\n\n{json.dumps(GOOD)}\n", encoding="utf-8")
    parts = Parts.from_config(load_config("demo", [f"judge.canaries.file={own}"]))
    pairs = Canaries.from_parts(parts).pairs
    assert [(pair.kind, pair.instruction) for pair in pairs] == [
        ("dim\u2028", "make it white"),
        ("own", "make it white"),
    ]
    assert [pairs[0].better.max(), pairs[0].worse.max()] == [200, 100]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", r"pairs.jsonl:1: not JSON"),
        ("[]", r"pairs.jsonl:1: must be an object"),
        (json.dumps(GOOD | {"instruction": " "}), r"pairs.jsonl:1: instruction=' '"),
        (json.dumps({k: v for k, v in GOOD.items() if k != "worse"}), r"pairs.jsonl:1: worse=None"),
        (json.dumps(GOOD | {"worse": "small.png"}), r"pairs.jsonl:1: worse is of another size"),
        (json.dumps(GOOD | {"worse": "nowhere.png"}), r"nowhere.png"),
        ("", "holds no canary pair"),
    ],
)
def test_a_file_that_is_none_says_where_and_why(own: Path, line: str, says: str) -> None:
    own.write_text(line)
    with pytest.raises(DataError, match=says):
        list(read_pairs(own))


@pytest.mark.parametrize("setting", ["every=-1", "pairs=0", "warn_below=1.5"])
def test_values_that_cannot_work_are_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match=r"judge\.canaries"):
        load_config("demo", [f"judge.canaries.{setting}"])
