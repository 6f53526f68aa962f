"""`thinkedit evaluate --benchmark`, run as a user runs it."""

import csv
import json
from pathlib import Path

import pytest
from benchmark_judge import FIXTURES, answering
from chat_server import ChatServer
from typer.testing import CliRunner

from thinkedit import cli

runner = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"})


def evaluate(*arguments: object, exit_code: int = 0) -> str:
    result = runner.invoke(cli.app, ["evaluate", *map(str, arguments)])
    assert result.exit_code == exit_code, result.output
    return result.output


def world(out: Path, *arguments: object) -> str:
    return evaluate("--benchmark", "world", "--out", out, "eval.tasks=6", "eval.bootstrap=100", *arguments)


def figures(out: Path, **wanted: str) -> list[dict[str, str]]:
    [folder] = (out / "judges").iterdir()
    rows = csv.DictReader((folder / "figures.csv").open())
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def test_turn_1_of_a_thinker_is_the_plain_editor(tmp_path: Path) -> None:
    world(tmp_path)
    shown = world(tmp_path, "--thinker", "naive_expert")
    first, alone = (
        [row["value"] for row in figures(tmp_path, arm=arm, turn="1")]
        for arm in ("naive_expert", "single_edit")
    )
    assert first == alone
    assert any(first)
    assert {row["n_judged"] for row in figures(tmp_path, arm="naive_expert")} == {"6"}
    assert {row["turn"] for row in figures(tmp_path, arm="naive_expert")} == {"1", "2", "3", "final"}
    assert "naive_expert" in shown
    assert "report.html" in shown
    arms = tmp_path / "arms"
    for layout in ("turn1", "turn2", "turn3", "final"):
        assert len(list((arms / "naive_expert" / layout / "images").rglob("*.png"))) == 6
    record = json.loads(next((arms / "naive_expert" / "items").iterdir()).read_text())
    assert record["turns"][0]["prompt"] == record["instruction"]
    assert "<think>" in record["turns"][0]["reply"]


def test_results_of_another_setting_are_not_mixed_in(tmp_path: Path) -> None:
    world(tmp_path)
    output = evaluate("--benchmark", "world", "--out", tmp_path, "eval.tasks=6", "eval.seed=1", exit_code=2)
    assert "made otherwise (seed differ)" in output


def test_stored_replies_are_counted_without_editor_and_judge(tmp_path: Path) -> None:
    world(tmp_path / "a", "--thinker", "naive_expert")
    [judged] = (tmp_path / "a" / "judges").iterdir()
    replies = judged / "replies.jsonl"
    world(
        tmp_path / "b",
        "--judge",
        f"replay:{replies}",
        "editor=http",
        "editor.options.urls=[http://127.0.0.1:9]",
    )
    [replayed] = (tmp_path / "b" / "judges").iterdir()
    assert (replayed / "figures.csv").read_text() == (judged / "figures.csv").read_text()
    assert not (tmp_path / "b" / "arms").exists()


def test_one_half_of_gedit_is_asked_for_by_name(tmp_path: Path) -> None:
    replies = tmp_path / "replies.jsonl"
    lines = [
        {"item": f"en/{key}-1", "metric": metric, "reply": '{"score": [4, 9]}'}
        for key in ("subject-add", "color_alter")
        for metric in ("SC", "PQ")
    ]
    replies.write_text("\n".join(map(json.dumps, lines)))
    evaluate(
        *("--benchmark", "gedit", "--data", FIXTURES / "gedit", "--out", tmp_path),
        *("--judge", f"replay:{replies}", "--language", "en"),
    )
    rows = figures(tmp_path, column="G_O", source="measured")
    assert [(row["table"], row["value"]) for row in rows] == [
        ("gedit-en-full", "4.0"),
        ("gedit-en-intersection", "4.0"),
    ]


def test_replies_are_counted_without_the_judges_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    replies = tmp_path / "replies.jsonl"
    replies.write_text(json.dumps({"item": "11", "metric": "criteria", "reply": "none"}))
    evaluate(
        *("--benchmark", "imgedit", "--data", FIXTURES / "imgedit", "--out", tmp_path),
        *("--judge", f"replay:{replies}", "judge=viescore"),
    )
    [row] = figures(tmp_path, column="Overall", source="measured")
    assert (row["n_expected"], row["n_parse_failed"]) == ("5", "1")


def test_results_of_others_are_judged_as_they_lie(tmp_path: Path) -> None:
    world(tmp_path)
    theirs = tmp_path / "arms" / "single_edit" / "final"
    world(tmp_path / "other", "--results", f"theirs={theirs}")
    ours = [row["value"] for row in figures(tmp_path, arm="single_edit", turn="final")]
    assert [row["value"] for row in figures(tmp_path / "other", arm="theirs")] == ours
    again = ("--benchmark", "world", "--out", tmp_path, "eval.tasks=6")
    assert "called 'single_edit' already" in evaluate(
        *again, "--results", f"single_edit={theirs}", exit_code=2
    )


def test_a_failing_editor_leaves_items_out_and_the_headline_withheld(tmp_path: Path) -> None:
    with ChatServer() as server:
        server.choose = answering()
        output = evaluate(
            *("--benchmark", "imgedit", "--data", FIXTURES / "imgedit", "--out", tmp_path),
            *(
                "judge=viescore",
                f"judge.options.base_url={server.base_url}",
                "judge.options.api_key_env=null",
            ),
            *("editor=http", "editor.options.urls=[http://127.0.0.1:9]", "editor.options.tries=1"),
        )
        assert not server.calls
    assert "withheld" in output
    assert "single_edit, 11: editor" in output
    [row] = figures(tmp_path, column="Overall", turn="final", source="measured")
    assert (row["n_expected"], row["n_generated"], row["value"], row["withheld"]) == ("5", "0", "", "True")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--benchmark", "imgedot"], "Did you mean 'imgedit'"),
        (["--benchmark", "imgedit"], "needs its files, --data PATH"),
        (["--benchmark", "imgedit", "--data", "nowhere"], "there is no nowhere"),
        (["--benchmark", "world", "--data", "x"], "makes its own pictures"),
        (["--benchmark", "world", "--judge", "viescore"], "--judge takes replay:FILE"),
        (
            ["--benchmark", "world", "--judge", "replay:x", "--thinker", "naive_expert", "--final-only"],
            "--thinker, --final-only: nothing is edited or judged",
        ),
        (["--benchmark", "world", "--results", "x"], "--results takes NAME=FOLDER"),
        (["--benchmark", "world", "--results", "x=."], "no result lies in .; one would be images/"),
        (["--benchmark", "gedit", "--data", str(FIXTURES / "gedit")], "judge=viescore"),
        (["--benchmark", "world", "inference.size=64x64"], "inference.size"),
        (["--benchmark", "world", "--arm", "../x"], "becomes a folder's"),
        (["--benchmark", "world", "--language", "en"], "world has one language"),
        (["--data", "x"], "data: only with --benchmark NAME"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_done(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in " ".join(evaluate(*arguments, exit_code=2).split())
