"""Collecting with real parts: the procedural editor, a scripted expert, and a chat server over HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chat_server import Call, ChatServer, Fails, Says
from PIL import Image

from thinkedit import plugins
from thinkedit.actors.inference import expert, open_thinking_editor
from thinkedit.actors.inference.questions import PROMPT_HASH
from thinkedit.configs.load import load_config
from thinkedit.data.build import build
from thinkedit.data.collect import Collected, Plan, collect
from thinkedit.data.formats.trajectories import Trajectory, read_trajectories
from thinkedit.data.journal import JournalInUse, SharedCount
from thinkedit.data.scoring import Scored, score_trajectories
from thinkedit.data.streak import ServiceDown
from thinkedit.envs.build import Parts
from thinkedit.envs.images import read_rgb
from thinkedit.envs.protocol import Protocol
from thinkedit.envs.services import Services
from thinkedit.errors import ConfigError, DataError

SCRIPTED = ("inference.thinker=naive_expert",)


def run(out: Path, plan: Plan, *overrides: str, mode: str = "while") -> Collected:
    config = load_config("demo", overrides or SCRIPTED)
    tasks = plugins.build("tasks", config.tasks.name, config.tasks.options)

    async def go() -> Collected:
        async with open_thinking_editor(config) as thinking:
            options = thinking.options(mode=mode, select="last", turns=plan.edits - 1)
            return await collect(thinking, tasks, out, plan, options)

    return asyncio.run(go())


def found(out: Path) -> list[Trajectory]:
    return [t.trajectory for file in sorted(out.glob("*.jsonl")) for t in read_trajectories(file)]


def without_times(trajectory: Trajectory) -> dict[str, Any]:
    from thinkedit.data.formats.trajectories import encode

    def drop(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: drop(item) for key, item in value.items() if key != "latency_s"}
        return [drop(item) for item in value] if isinstance(value, list) else value

    plain: dict[str, Any] = drop(json.loads(encode(trajectory)))
    return plain


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("collected") / "raw"
    assert run(out, Plan(count=30, edits=3)) == Collected(before=0, done=30, failed=0)
    return out


def test_everything_is_kept(collected: Path) -> None:
    trajectories = found(collected)
    assert sorted(t.index for t in trajectories if t.index is not None) == list(range(30))
    for trajectory in trajectories:
        assert trajectory.editor is not None
        assert trajectory.editor.name == "procedural"
        assert "keep_clauses" in trajectory.editor.config
        assert trajectory.expert is not None
        assert trajectory.expert.name == "naive_expert"
        assert 1 <= len(trajectory.steps) <= 3
        assert trajectory.steps[0].prompt == trajectory.instruction
        for step in trajectory.steps:
            assert step.score is None  # the expert gives none
            assert step.expert is not None
            assert step.expert.raw is not None
            assert step.expert.raw.startswith("<think>")
            data = (collected / step.image).read_bytes()
            assert step.image_sha256 == hashlib.sha256(data).hexdigest()
    assert len({t.editor.seed for t in trajectories if t.editor}) == 30


def test_each_edit_but_the_last_leads_to_the_next(collected: Path) -> None:
    for trajectory in found(collected):
        for step, following in zip(trajectory.steps, trajectory.steps[1:], strict=False):
            assert step.expert is not None
            assert (step.expert.stop, step.expert.next_prompt) == (False, following.prompt)
        last = trajectory.steps[-1].expert
        assert last is not None
        assert last.stop or len(trajectory.steps) == 3
    assert any(t.steps[-1].expert.stop for t in found(collected) if t.steps[-1].expert)


def test_a_second_run_does_nothing(collected: Path) -> None:
    before = {path: path.read_bytes() for path in collected.glob("*.jsonl")}
    assert run(collected, Plan(count=30, edits=3)) == Collected(before=30, done=0, failed=0)
    assert before == {path: path.read_bytes() for path in collected.glob("*.jsonl")}


def test_more_tasks_and_shards_add_only_what_is_missing(collected: Path, tmp_path: Path) -> None:
    whole = tmp_path / "raw"
    for shard in range(3):
        run(whole, Plan(count=20, edits=3, shard=shard, shards=3))
    assert run(whole, Plan(count=30, edits=3)).before == 20
    mine, theirs = (
        {t.trajectory_id: without_times(t) for t in found(folder)} for folder in (whole, collected)
    )
    assert mine == theirs  # the same tasks, edits and replies, however they were shared out
    assert len(found(whole)) == 30


def pairs(path: Path, *names: str) -> tuple[str, ...]:
    """A file of the world's pictures with their instructions; the overrides that collect from it."""
    world = plugins.build("tasks", "world", {})
    lines = []
    for name in names:
        task = world.task("train", int(name))
        Image.fromarray(task.source).save(path.parent / f"{name}.png")
        lines.append({"image": f"{name}.png", "instruction": task.instruction, "split": "train"})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return (*SCRIPTED, "tasks=file", f"tasks.options.path={path}")


def test_lines_put_before_the_others_neither_repeat_nor_lose_a_task(tmp_path: Path) -> None:
    path, out = tmp_path / "pairs.jsonl", tmp_path / "raw"
    assert run(out, Plan(edits=2), *pairs(path, "1", "2")) == Collected(done=2)
    assert run(out, Plan(edits=2), *pairs(path, "7", "8", "1", "2")) == Collected(before=2, done=2)
    sources = [located.source_sha256 for located in found(out)]
    assert len(sources) == len(set(sources)) == 4
    assert run(out, Plan(edits=2), *pairs(path, "2", "7")) == Collected(before=2)


def test_a_broken_picture_is_a_failed_task_and_the_others_are_played(tmp_path: Path) -> None:
    path, out = tmp_path / "pairs.jsonl", tmp_path / "raw"
    overrides = pairs(path, "1", "2", "3", "4")
    for name in "123":
        (tmp_path / f"{name}.png").write_bytes(b"no picture" + name.encode())
    plan = Plan(edits=2, concurrency=1, failures=2)  # three in a row, but of no service
    assert run(out, plan, *overrides) == Collected(done=1, failed=3)
    told = json.loads((out / "failures-1-of-1.log").read_text().splitlines()[0])
    assert (told["index"], "1.png" in told["failure"]) == (0, True)


@pytest.mark.parametrize("torn", ['{"trajectory_id": "half a li', None])
def test_a_torn_last_line_of_another_shard_is_that_shards_affair(tmp_path: Path, torn: str | None) -> None:
    out, first, second = tmp_path / "raw", *(Plan(count=4, edits=2, shard=s, shards=2) for s in (0, 1))
    run(out, first)
    file = out / "trajectories-1-of-2.jsonl"
    whole = file.read_bytes()
    left = whole + torn.encode() if torn else whole[:-1]  # only the end of the line is missing
    file.write_bytes(left)
    assert run(out, second) == Collected(done=2)
    assert file.read_bytes() == left
    assert run(out, first) == (Collected(before=2) if torn else Collected(before=1, done=1))
    file.write_bytes(b'{"trajectory_id": "damaged"}\n' + whole)
    with pytest.raises(DataError, match=r"trajectories-1-of-2\.jsonl:1: task_type"):
        run(out, second)


def test_runs_under_way_share_the_tasks_out_alike(tmp_path: Path) -> None:
    out = tmp_path / "raw"
    run(out, Plan(count=2, edits=2, shard=0, shards=2))
    with SharedCount(out / ".shards", 1), pytest.raises(JournalInUse, match=r"in 1 parts.*would in 2"):
        run(out, Plan(count=2, edits=2, shard=1, shards=2))
    assert run(out, Plan(count=2, edits=2)) == Collected(before=1, done=1)


def test_pictures_are_on_the_disk_before_the_line_that_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    lines: dict[int, set[Path]] = {}

    def fsync(file: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{file}"))
        synced.append(path.with_name(path.name.removeprefix(".tmp-")[33:]) if ".tmp-" in path.name else path)
        if path.suffix == ".jsonl":
            lines[path.read_bytes().count(b"\n")] = set(synced)

    monkeypatch.setattr(os, "fsync", fsync)
    out = tmp_path / "raw"
    run(out, Plan(count=3, edits=2))
    for number, trajectory in enumerate(found(out), start=1):
        for image in (trajectory.source_image, *(step.image for step in trajectory.steps)):
            assert {out / image, (out / image).parent} <= lines[number]


def test_ids_of_two_experts_over_the_same_tasks_differ(tmp_path: Path) -> None:
    run(tmp_path / "a", Plan(count=3, edits=2))
    run(tmp_path / "b", Plan(count=3, edits=2), "inference.thinker=aware_expert")
    run(tmp_path / "again", Plan(count=3, edits=2))
    a, b, again = ({t.trajectory_id for t in found(tmp_path / name)} for name in ("a", "b", "again"))
    assert a == again
    assert not a & b


def test_a_collection_is_not_mixed_with_another(collected: Path) -> None:
    with pytest.raises(ConfigError, match="another editor"):
        run(collected, Plan(count=40, edits=3), *SCRIPTED, "editor.options.harm=0.9")
    with pytest.raises(ConfigError, match="another edits"):
        run(collected, Plan(count=40, edits=4))
    with pytest.raises(ConfigError, match="another expert"):  # it would be asked in other words
        run(collected, Plan(count=40, edits=3), *SCRIPTED, "protocol.template=full")


def test_an_endless_source_needs_a_count(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no end"):
        run(tmp_path, Plan())


# --- an expert behind a server


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as running:
        yield running


def to(server: ChatServer) -> tuple[str, ...]:
    where = f"inference.server.base_url={server.base_url}"
    return (
        "inference.thinker=server",
        where,
        "inference.server.api_key_env=null",
        "inference.server.tries=1",
    )


def said(satisfied: bool) -> Says:
    prompt = "" if satisfied else "please do it again, keep everything else unchanged"
    return Says(json.dumps({"reason": "I looked", "satisfied": satisfied, "next_prompt": prompt}))


def test_a_models_words_are_kept_as_they_came(server: ChatServer, tmp_path: Path) -> None:
    server.answers["sc"] = [said(False), said(True)]
    run(tmp_path / "raw", Plan(count=1, edits=4, concurrency=1), *to(server), mode="expert")
    (trajectory,) = found(tmp_path / "raw")
    first, second = trajectory.steps
    assert first.expert is not None
    assert second.expert is not None
    assert (first.expert.reason, first.expert.stop) == ("I looked", False)
    assert first.expert.next_prompt == second.prompt == "please do it again, keep everything else unchanged"
    assert (second.expert.stop, second.expert.next_prompt) == (True, None)
    assert json.loads(str(second.expert.raw))["satisfied"] is True
    assert trajectory.expert is not None
    assert trajectory.expert.model == "gpt-4.1-2025-04-14"  # as it was asked for,
    assert first.expert.model == "grader-2026"  # and as the server says who replied
    assert trajectory.expert.settings["prompt_hash"] == PROMPT_HASH


def test_replies_that_could_not_be_read_are_kept_as_they_came(server: ChatServer, tmp_path: Path) -> None:
    nonsense = "I would rather talk. " * 20
    server.answers["sc"] = [Says(nonsense), Says("{}"), said(True)]
    run(tmp_path / "raw", Plan(count=1, edits=2), *to(server), mode="expert")
    (trajectory,) = found(tmp_path / "raw")
    (step,) = trajectory.steps
    assert step.expert is not None
    assert step.expert.unread == (nonsense, "{}")


@pytest.mark.parametrize("edits", [2, 3])  # the critique that fails is the last of all, or not
def test_replies_of_a_task_that_failed_for_them_are_kept_too(
    server: ChatServer, tmp_path: Path, edits: int
) -> None:
    nonsense = "I would rather talk. " * 20
    server.answers["sc"] = [said(False), Says(nonsense)]
    assert run(tmp_path / "raw", Plan(count=1, edits=edits), *to(server), mode="expert").failed == 1
    [failure] = (tmp_path / "raw" / "failures-1-of-1.log").read_text().splitlines()
    assert set(json.loads(failure)["unread"]) == {nonsense}


def test_an_expert_that_is_asked_otherwise_is_another(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers["sc"] = [said(True)]
    run(tmp_path / "raw", Plan(count=1, edits=2), *to(server), mode="expert")
    monkeypatch.setattr(expert, "PROMPT_HASH", "of other words")
    with pytest.raises(ConfigError, match="another expert"):
        run(tmp_path / "raw", Plan(count=2, edits=2), *to(server), mode="expert")


def test_failed_tasks_are_told_and_tried_again(server: ChatServer, tmp_path: Path) -> None:
    served = 0

    def one_in_three_fails(call: Call) -> Says | Fails:
        nonlocal served
        served += 1
        return Fails(500) if served % 3 == 0 else said(True)

    server.choose = one_in_three_fails
    out, plan = tmp_path / "raw", Plan(count=9, concurrency=1)
    assert run(out, plan, *to(server), mode="expert") == Collected(before=0, done=6, failed=3)
    failures = [json.loads(line) for line in (out / "failures-1-of-1.log").read_text().splitlines()]
    assert [f["index"] for f in failures] == [2, 5, 8]
    assert all("HTTP 500" in f["failure"] for f in failures)
    server.choose = lambda call: said(True)
    assert run(out, plan, *to(server), mode="expert") == Collected(before=6, done=3, failed=0)
    assert sorted(t.index for t in found(out) if t.index is not None) == list(range(9))


def test_a_dead_service_ends_it_soon(server: ChatServer, tmp_path: Path) -> None:
    server.choose = lambda call: Fails(500)
    plan = Plan(count=1000, concurrency=2, failures=5)
    with pytest.raises(ServiceDown, match=r"5 in a row failed.*HTTP 500"):
        run(tmp_path / "raw", plan, *to(server), mode="expert")
    assert len(server.calls) <= 7


# --- scoring


def score(source: Path, scored: Path, *overrides: str, **limits: int) -> Scored:
    parts = Parts.from_config(load_config("demo", overrides))
    services = Services(parts.editor, parts.judge, 10, 10)
    try:
        return asyncio.run(score_trajectories(source, scored, services, **limits))
    finally:
        parts.close()


def judged_by(server: ChatServer) -> tuple[str, ...]:
    names = {"base_url": server.base_url, "api_key_env": "null", "tries": 1}
    return ("judge=viescore", *(f"judge.options.{key}={value}" for key, value in names.items()))


def test_the_judge_grades_what_has_no_score(collected: Path, tmp_path: Path) -> None:
    scored = tmp_path / "scored.jsonl"
    told = score(collected, scored)
    raw, graded = found(collected), [t.trajectory for t in read_trajectories(scored)]
    assert told == Scored(before=0, done=30, graded=sum(len(t.steps) for t in raw))
    assert [t.trajectory_id for t in graded] == [t.trajectory_id for t in raw]
    judge = Parts.from_config(load_config("demo")).judge
    for trajectory in graded[:5]:
        source = read_rgb(trajectory.source_image)
        for step in trajectory.steps:
            expected = judge.judge(source, read_rgb(step.image), trajectory.instruction)
            assert step.score is not None
            assert (step.score.semantic, step.score.quality) == (
                expected.scores.semantic,
                expected.scores.quality,
            )
            assert step.score.judge_id == expected.judge_id


def test_scoring_goes_on_where_it_was(collected: Path, tmp_path: Path) -> None:
    whole, half = tmp_path / "whole.jsonl", tmp_path / "half.jsonl"
    score(collected, whole)
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])  # in the middle of a line
    told = score(collected, half)
    assert 0 < told.before < 30
    assert told.before + told.done == 30
    assert half.read_bytes() == whole.read_bytes()
    assert score(collected, half) == Scored(before=30)


def test_a_refusal_ends_a_trajectory_and_not_the_work(
    server: ChatServer, collected: Path, tmp_path: Path
) -> None:
    server.answers["sc"] = [Says(None, refusal="no")]
    scored = tmp_path / "scored.jsonl"
    told = score(collected, scored, *judged_by(server), concurrency=1, failures=2)
    assert (told.done, told.graded, told.refused) == (30, 0, 30)
    assert server.asked("sc") == 30  # nothing is asked after the first edit without a verdict
    figures = build(scored, tmp_path / "out", load_config("demo").data, Protocol())
    assert figures.fates == {"ungraded": 30}


def test_a_dead_judge_writes_nothing_down(server: ChatServer, collected: Path, tmp_path: Path) -> None:
    scored = tmp_path / "scored.jsonl"
    served = 0

    def dies(call: Call) -> Says | Fails:
        nonlocal served
        served += 1
        return Fails(500) if served > 20 else Says(json.dumps({"reasoning": "", "score": [8, 7]}))

    server.choose = dies
    with pytest.raises(ServiceDown, match="3 in a row failed"):
        score(collected, scored, *judged_by(server), concurrency=1, failures=3)
    written = [t.trajectory for t in read_trajectories(scored)]
    assert 0 < len(written) < 30
    assert all(step.score for t in written for step in t.steps)
    server.choose = None
    told = score(collected, scored, *judged_by(server))
    assert told.before == len(written)
    assert all(step.score for t in read_trajectories(scored) for step in t.trajectory.steps)


def test_from_tasks_to_training_sets(collected: Path, tmp_path: Path) -> None:
    scored = tmp_path / "scored.jsonl"
    score(collected, scored)
    config = load_config("demo")
    data = replace(config.data, keep_immediate_success=True, balance_share=1.0)
    figures = build(scored, tmp_path / "out", data, Protocol(config.protocol))
    assert figures.records["sft/stop"] > 0
    assert figures.records["rl/state"] > 0
