"""Scoring what a judge, over real HTTP or in this process, grades, refuses or fails at."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from chat_server import Answer, ChatServer, Fails, Hangs, Says, marks
from trajectory_files import overall, trajectory, write

from thinkedit.configs.load import load_config
from thinkedit.data.formats.trajectories import Score, encode, read_trajectories
from thinkedit.data.scoring import Scored, Ungraded, score_trajectories
from thinkedit.envs.build import Parts
from thinkedit.envs.services import Services
from thinkedit.errors import ConfigError, DataError, JudgeMismatch
from thinkedit.rewards.judges.base import Judge
from thinkedit.types import RGB, Scores, Verdict


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as running:
        yield running


def served(server: ChatServer, model: str = "grader") -> Judge:
    where = {"base_url": server.base_url, "api_key_env": "null", "tries": 1, "model": model}
    overrides = [f"judge.options.{key}={value}" for key, value in where.items()]
    return Parts.from_config(load_config("demo", ["judge=viescore", *overrides])).judge


def score(source: Path, scored: Path, judge: Judge, timeout_s: float = 10, **limits: Any) -> Scored:
    editor = Parts.from_config(load_config("demo")).editor
    services = Services(editor, judge, 10, timeout_s)
    try:
        return asyncio.run(score_trajectories(source, scored, services, concurrency=1, **limits))
    finally:
        judge.close()


def ungraded(folder: Path, count: int = 4) -> Path:
    # Sources of their own: the judge's cache knows a pair of pictures again.
    made = [trajectory(None, None, uid=f"t{n}", source=f"{n}.png") for n in range(count)]
    return write(folder / "raw" / "t.jsonl", made)


def ids(scored: Path) -> list[str]:
    return [located.trajectory.trajectory_id for located in read_trajectories(scored)]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fails(500), "JudgeUnreachable"),
        (Says("I like it."), "JudgeUnreadable"),
        (Hangs(), "ServiceTimeout"),
    ],
)
def test_where_the_judge_failed_the_same_command_tries_again(
    server: ChatServer, tmp_path: Path, fault: Answer, kind: str
) -> None:
    source, scored = ungraded(tmp_path), tmp_path / "scored.jsonl"
    server.answers["sc"] = [marks(8, 6), marks(8, 6), marks(8, 6), fault, marks(8, 6)]  # t1's second edit
    with pytest.raises(Ungraded, match=rf"1 trajectories \({kind} 1\).*the same command tries them again"):
        score(source, scored, served(server), timeout_s=1)
    assert ids(scored) == ["t0", "t2", "t3"]
    assert score(source, scored, served(server)) == Scored(before=3, done=1, graded=2)
    assert ids(scored) == ["t0", "t2", "t3", "t1"]
    assert all(step.score for found in read_trajectories(scored) for step in found.trajectory.steps)


def test_on_request_what_failed_is_left_out(server: ChatServer, tmp_path: Path) -> None:
    source, scored = ungraded(tmp_path), tmp_path / "scored.jsonl"
    server.answers["sc"] = [Fails(500), marks(8, 6)]
    told = score(source, scored, served(server), without_failed=True)
    assert told == Scored(done=3, graded=6, failed=Counter(JudgeUnreachable=1))
    assert ids(scored) == ["t1", "t2", "t3"]


def test_a_refusal_is_for_good_and_says_why(server: ChatServer, tmp_path: Path) -> None:
    source, scored = ungraded(tmp_path, 1), tmp_path / "scored.jsonl"
    server.answers["sc"] = [marks(8, 6), Says(None, refusal="not this one")]
    assert score(source, scored, served(server)) == Scored(done=1, graded=1, refused=1)
    (found,) = read_trajectories(scored)
    first, second = found.trajectory.steps
    assert (first.score is None, first.refused) == (False, None)
    assert (second.score, "not this one" in str(second.refused)) == (None, True)
    assert score(source, scored, served(server)) == Scored(before=1)


def test_what_nobody_graded_or_refused_is_no_result(server: ChatServer, tmp_path: Path) -> None:
    source, scored = ungraded(tmp_path), tmp_path / "scored.jsonl"
    scored.write_bytes(source.read_bytes().splitlines(keepends=True)[1])
    with pytest.raises(ConfigError, match=r"scored\.jsonl:1 has an edit without a score and no word"):
        score(source, scored, served(server))


def test_scores_of_other_trajectories_are_refused(server: ChatServer, tmp_path: Path) -> None:
    source, scored = ungraded(tmp_path), write(tmp_path / "scored.jsonl", [overall(3, 4, uid="other")])
    with pytest.raises(ConfigError, match=r"scored\.jsonl:1 is another trajectory"):
        score(source, scored, served(server))


# --- the file beside its source


def test_what_is_written_into_the_source_folder_is_not_read_from_it(
    server: ChatServer, tmp_path: Path
) -> None:
    folder = ungraded(tmp_path).parent
    scored = folder / "a.scored.jsonl"  # read first, by its name
    assert score(folder, scored, served(server)).done == 4
    assert score(folder, scored, served(server)) == Scored(before=4)
    assert ids(scored) == ["t0", "t1", "t2", "t3"]
    scored.write_bytes(b"".join(scored.read_bytes().splitlines(keepends=True)[:3]))
    wholes: set[int] = set()
    score(folder, scored, served(server), progress=lambda found, whole: wholes.add(whole))
    assert wholes == {4}
    with pytest.raises(JudgeMismatch, match="stranger"):
        score(folder, scored, served(server, "stranger"))


def test_a_file_is_not_graded_into_itself(server: ChatServer, tmp_path: Path) -> None:
    source = ungraded(tmp_path)
    before = source.read_bytes()
    with pytest.raises(DataError, match="nothing to grade but"):
        score(source, source, served(server))
    assert source.read_bytes() == before


# --- one judge


def test_scores_of_another_judge_are_not_gone_on_with(server: ChatServer, tmp_path: Path) -> None:
    source, scored = ungraded(tmp_path), tmp_path / "scored.jsonl"
    score(source, scored, served(server))
    lines = scored.read_bytes().splitlines(keepends=True)
    scored.write_bytes(lines[0])
    asked = len(server.calls)
    with pytest.raises(JudgeMismatch, match=r"scored\.jsonl:1 has a score of .*grader.* is .*stranger"):
        score(source, scored, served(server, "stranger"))
    assert len(server.calls) == asked


def test_scores_that_came_with_the_source_may_be_anybodys(server: ChatServer, tmp_path: Path) -> None:
    source = write(tmp_path / "t.jsonl", [overall(3, 4, uid="a"), trajectory(None, uid="b")])
    scored = tmp_path / "scored.jsonl"
    assert score(source, scored, served(server)) == Scored(done=2, graded=1)
    assert score(source, scored, served(server)) == Scored(before=2)


@pytest.mark.parametrize("judge_id", [None, "somebody"])
def test_a_trajectory_graded_in_part_by_another_is_refused_before_a_call(
    server: ChatServer, tmp_path: Path, judge_id: str | None
) -> None:
    half = trajectory((4, 5), None)
    mark = Score(semantic=4, quality=5, judge_id=judge_id)
    first = msgspec.structs.replace(half.steps[0], score=mark)
    half = msgspec.structs.replace(half, steps=(first, half.steps[1]))
    source = write(tmp_path / "t.jsonl", [half])
    with pytest.raises(JudgeMismatch, match=rf"t\.jsonl:1 has a score of {judge_id or 'nobody'}.*grader"):
        score(source, tmp_path / "scored.jsonl", served(server))
    assert server.calls == []


class Fickle(Judge):
    """Names itself only in its verdicts, otherwise from the second call on."""

    name, inline = "fickle", True

    def __init__(self, names: list[str]) -> None:
        self._names = iter(names)

    def judge(self, source: RGB, edited: RGB, instruction: str) -> Verdict:
        return Verdict(scores=Scores(4, 5), judge_id=next(self._names), prompt_hash="p")


def test_a_judge_that_turns_into_another_is_noticed(tmp_path: Path) -> None:
    source, scored = ungraded(tmp_path), tmp_path / "scored.jsonl"
    with pytest.raises(JudgeMismatch, match=r"score of b .*the judge here is a"):
        score(source, scored, Fickle(["a"] * 3 + ["b"] * 5))
    assert ids(scored) == ["t0"]
    with pytest.raises(JudgeMismatch, match=r"score of b .*the judge here is a"):
        score(source, scored, Fickle(["b"] * 8))


class Choir(Fickle):
    """An ensemble of which a member may be missing."""

    def identities(self) -> frozenset[tuple[str, str]]:
        return frozenset({("both", "p"), ("one", "p")})


def test_a_member_that_fails_within_a_trajectory_is_a_failure(tmp_path: Path) -> None:
    source, scored = ungraded(tmp_path, 2), tmp_path / "scored.jsonl"
    with pytest.raises(Ungraded, match="JudgeMismatch 1"):
        score(source, scored, Choir(["both", "one", "both", "both"]))
    assert score(source, scored, Choir(["both"] * 2)) == Scored(before=1, done=1, graded=2)


def test_two_judges_in_one_trajectory_are_refused(tmp_path: Path) -> None:
    line: dict[str, Any] = json.loads(encode(overall(3, 4)))
    for step, judge in zip(line["steps"], ("one", "two"), strict=True):
        step["score"] |= {"judge_id": judge, "prompt_hash": "p"}
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(line))
    with pytest.raises(DataError, match=r"t\.jsonl:1: steps: scores of different judges.*one \(p\) and two"):
        list(read_trajectories(path))
