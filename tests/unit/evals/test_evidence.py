"""The evidence page holds what the runs' summaries hold, and compares only like with like."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from thinkedit.cli import app
from thinkedit.errors import DataError
from thinkedit.evals.evidence import write_evidence
from thinkedit.evals.run import RunFolder, write_json
from thinkedit.evals.summary import summarise_run


@pytest.fixture(scope="module")
def summary(run: RunFolder) -> dict[str, Any]:
    return summarise_run(run)


def runs(folder: Path, summary: dict[str, Any], *changes: dict[str, Any]) -> list[Path]:
    paths = []
    for i, change in enumerate(changes):
        path = folder / f"run-{i}"
        write_json(RunFolder(path).summary, summary | change)
        paths.append(path)
    return paths


def test_the_page_has_a_column_per_seed_in_order(tmp_path: Path, summary: dict[str, Any]) -> None:
    paths = runs(tmp_path, summary, {"seed": 2}, {"seed": 0}, {"seed": 1})
    page, figure = write_evidence(paths, tmp_path / "docs" / "evidence.md")
    text = page.read_text()
    assert "| thinker | seed 0 | seed 1 | seed 2 | mean over seeds |" in text
    overall = summary["arms"]["grpo"]["overall"]
    cell = f"{overall['mean']:.2f} ({overall['low']:.2f} to {overall['high']:.2f})"
    assert text.count(cell) == 3
    change = summary["critic_change"]
    assert text.count(f"{change['mean']:+.2f} ({change['low']:+.2f} to {change['high']:+.2f})") == 3
    assert f"]({figure.name})" in text
    ElementTree.parse(figure)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (({"seed": 1}, {"seed": 1}), "same seed"),
        (({"seed": 1}, {"seed": 2, "name": "other"}), "differ in name"),
        (({"seed": 1}, {"seed": 2, "judge": [{"id": "x", "prompt_hash": "y"}]}), "differ in judge"),
        (({"seed": 1, "schema": 0},), "has version 0, this thinkedit reads 2"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(
    tmp_path: Path, summary: dict[str, Any], changes: tuple[dict[str, Any], ...], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        write_evidence(runs(tmp_path, summary, *changes), tmp_path / "evidence.md")


def test_a_run_without_a_summary_is_answered_with_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"`thinkedit report .*` makes one"):
        write_evidence([tmp_path], tmp_path / "evidence.md")


def test_the_command_names_what_it_wrote(tmp_path: Path, summary: dict[str, Any]) -> None:
    (path,) = runs(tmp_path, json.loads(json.dumps(summary)), {"seed": 0})
    out = tmp_path / "evidence.md"
    result = CliRunner().invoke(app, ["evidence", str(path), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert result.output.split() == [str(out), str(out.with_suffix(".svg"))]
