"""`thinkedit build-data` as a user calls it."""

from __future__ import annotations

from pathlib import Path

from chat_server import ChatServer, Fails, marks
from trajectory_files import overall, trajectory, write
from typer.testing import CliRunner

from thinkedit import cli
from thinkedit.data.formats.records import read_records

runner = CliRunner(env={"COLUMNS": "100", "TERM": "dumb"})


def test_build_data_writes_sets_and_says_what_became_of_each(tmp_path: Path) -> None:
    trajectories = [overall(5, 8, uid=f"t{n}", source=f"{n}.png") for n in range(20)]
    trajectories.append(overall(5, 4, uid="worse", source="w.png"))
    source, out = write(tmp_path / "t.jsonl", trajectories), tmp_path / "out"
    rules = ["data.rl_trajectories=5", "data.rl_min_variance=1", "data.balance_share=1", "seed=2"]
    result = runner.invoke(cli.app, ["build-data", str(source), "--out", str(out), *rules])
    assert result.exit_code == 0, result.output
    assert "taken for RL" in result.stdout
    assert "no later edit as good as the first" in result.stdout
    assert str(out / "report.html") in result.stdout
    assert len({r.trajectory_id for r in read_records(out / "records/rl.jsonl")}) == 5


def test_a_fault_is_one_line(tmp_path: Path) -> None:
    source = tmp_path / "t.jsonl"
    source.write_text('{"trajectory_id": "a"}\n')
    result = runner.invoke(cli.app, ["build-data", str(source), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert f"{source}:1: task_type: this required field is missing" in result.stderr


def test_a_mistyped_rule_offers_the_nearest(tmp_path: Path) -> None:
    result = runner.invoke(cli.app, ["build-data", "t.jsonl", "--out", str(tmp_path / "o"), "data.rl_shar=1"])
    assert result.exit_code == 2
    assert "Did you mean 'data.rl_share'" in result.stderr


def test_collect_then_build_then_convert(tmp_path: Path) -> None:
    raw, out, target = tmp_path / "raw", tmp_path / "out", tmp_path / "rl.parquet"
    expert = ["--expert", "naive_expert", "--edits", "3"]
    collected = runner.invoke(cli.app, ["collect", "--out", str(raw), *expert, "--count", "12"])
    assert collected.exit_code == 0, collected.output
    assert "12 collected, 0 were there, 0 failed" in collected.stdout
    rules = ["data.keep_immediate_success=true", "data.balance_share=1"]
    built = runner.invoke(cli.app, ["build-data", str(raw), "--out", str(out), "--score", *rules])
    assert built.exit_code == 0, built.output
    assert "edits graded" in built.stdout
    formats = ["--from", "records", "--to", "verl-rl"]
    converted = runner.invoke(cli.app, ["convert-data", str(out / "records/rl.jsonl"), str(target), *formats])
    assert converted.exit_code == 0, converted.output
    assert target.read_bytes() == (out / "verl/rl.parquet").read_bytes()


def test_a_shard_is_read_as_people_count(tmp_path: Path) -> None:
    command = ["collect", "--out", str(tmp_path / "raw"), "--expert", "naive_expert", "--count", "4"]
    assert runner.invoke(cli.app, [*command, "--shard", "2/2"]).exit_code == 0
    assert (tmp_path / "raw/trajectories-2-of-2.jsonl").read_bytes().count(b"\n") == 2
    for wrong in ("3/2", "0/2", "half"):
        assert runner.invoke(cli.app, [*command, "--shard", wrong]).exit_code == 2


def test_the_build_waits_for_what_the_judge_failed_at_unless_told_otherwise(tmp_path: Path) -> None:
    raw = [trajectory(None, None, uid=f"t{n}", source=f"{n}.png") for n in range(3)]
    source, out = write(tmp_path / "t.jsonl", raw), tmp_path / "out"
    with ChatServer() as server:
        where = {"base_url": server.base_url, "api_key_env": "null", "tries": 1}
        judge = ["judge=viescore", *(f"judge.options.{key}={value}" for key, value in where.items())]
        command = ["build-data", str(source), "--out", str(out), "--score", "--concurrency", "1", *judge]
        server.answers["sc"] = [Fails(500), marks(8, 6)]
        waits = runner.invoke(cli.app, command)
        assert waits.exit_code == 2
        assert "failed at 1 trajectories (JudgeUnreachable 1)" in waits.stderr
        assert not out.exists()
        server.answers["sc"] = [Fails(500)]
        built = runner.invoke(cli.app, [*command, "--without-failed"])
    assert built.exit_code == 0, built.output
    assert "1 left out, 2 were there" in built.stdout
    assert out.exists()
