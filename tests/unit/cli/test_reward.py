"""`thinkedit reward` prints what a reply would earn."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from thinkedit.cli import app

GOOD = '<think>dull</think><score>{"semantic": 7, "quality": 8}</score><answer>paint it</answer>'


def run(tmp_path: Path, reply: bytes, *more: str, prompt: str = "make it red") -> dict[str, object]:
    file = tmp_path / "reply.txt"
    file.write_bytes(reply)
    arguments = ["reward", "--reply", str(file), "--prompt", prompt, "--before", "5,6", "--after", "8,7"]
    result = CliRunner().invoke(app, [*arguments, *more])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert set(report) == {"total", "terms", "outcome", "error"}
    return dict(report)


@pytest.mark.parametrize(
    ("profile", "total"), [("balanced", 0.81), ("released", 0.825), ("paper", 0.56024356794)]
)
def test_a_reply_is_scored_to_the_digit(tmp_path: Path, profile: str, total: float) -> None:
    report = run(tmp_path, GOOD.encode(), "--profile", profile)
    assert report["total"] == total
    assert (report["outcome"], report["error"]) == ("ok", None)


def test_repeating_the_prompt_keeps_the_edit(tmp_path: Path) -> None:
    report = run(tmp_path, GOOD.encode(), prompt=" paint it ")
    assert report["total"] == 0.76  # 0.70 + 0.1 A, with A = 0.6


def test_high_scores_keep_the_edit_only_with_a_threshold(tmp_path: Path) -> None:
    high = GOOD.replace("7", "8").encode()
    assert run(tmp_path, high)["terms"]["semantic"] == 0.65  # type: ignore[index]
    assert run(tmp_path, high, "--threshold", "8")["terms"]["semantic"] == 0.5  # type: ignore[index]
    assert run(tmp_path, high, "--threshold", "9")["terms"]["semantic"] == 0.65  # type: ignore[index]


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (b"", "missing_think"),
        (b"\xff\xfe\x00", "not_unicode"),
        (GOOD.encode() + b"\x80", "not_unicode"),
        (GOOD.replace("7", "11").encode(), "score_range"),
    ],
)
def test_any_bytes_are_an_answer_not_a_traceback(tmp_path: Path, reply: bytes, error: str) -> None:
    report = run(tmp_path, reply)
    assert report == {"total": 0.0, "terms": {"format": 0.0}, "outcome": "malformed", "error": error}


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--before", "5", "two numbers"),
        ("--after", "5,11", "0, 10"),
        ("--profile", "blanced", "balanced"),
        ("--reply", "/no/such/file", "No such file"),
    ],
)
def test_a_wrong_option_is_told_in_plain_words(tmp_path: Path, option: str, value: str, says: str) -> None:
    file = tmp_path / "reply.txt"
    file.write_text(GOOD)
    options = {"--reply": str(file), "--prompt": "a", "--before": "5,6", "--after": "8,7", option: value}
    result = CliRunner().invoke(app, ["reward", *(text for pair in options.items() for text in pair)])
    assert result.exit_code == 2
    assert says in result.output
