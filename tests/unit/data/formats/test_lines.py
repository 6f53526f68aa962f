"""Reading records one at a time, and saying where a fault is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from thinkedit.data.formats import lines
from thinkedit.data.formats.lines import read_lines, read_values
from thinkedit.errors import DataError


def file(folder: Path, text: str) -> Path:
    path = folder / "file.json"
    path.write_text(text, encoding="utf-8")
    return path


def test_lines_know_their_number_and_place(tmp_path: Path) -> None:
    path = file(tmp_path, '{"a": "é"}\n\n  \n{"b": 1}')
    first, second = read_lines(path)
    assert (first.number, first.offset) == (1, 0)
    assert second.number == 4
    assert path.read_bytes()[second.offset :] == second.data


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 4096])
@pytest.mark.parametrize(
    "text",
    [
        '[{"a": 1}, {"a": [2, {"b": "]}, {"}]}\n,\n{"a": "x\\"y"}]',
        '[\n  {\n    "a": 1\n  },\n  {"a": [2, {"b": "]}, {"}]}, {"a": "x\\"y"}\n]\n',
        '{"a": 1}\n{"a": [2, {"b": "]}, {"}]}\n\n{"a": "x\\"y"}\n',
    ],
)
def test_lists_and_lines_read_alike_whatever_the_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, chunk: int
) -> None:
    monkeypatch.setattr(lines, "_CHUNK", chunk)
    found = [value for _, value in read_values(file(tmp_path, text))]
    assert found == [{"a": 1}, {"a": [2, {"b": "]}, {"}]}, {"a": 'x"y'}]


@pytest.mark.parametrize("chunk", [1, 4096])
def test_values_know_the_line_they_start_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(lines, "_CHUNK", chunk)
    path = file(tmp_path, '[\n{"a":\n1},\n\n{"b": 2}, {"c": 3}]')
    assert [line for line, _ in read_values(path)] == [2, 5, 5]


@pytest.mark.parametrize("text", ["", "  \n", "[]", " [ ]\n"])
def test_nothing_is_no_fault(tmp_path: Path, text: str) -> None:
    assert list(read_values(file(tmp_path, text))) == []


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ('[{"a": 1}\n{"a": 2}]', 2, "expected ','"),
        ('[{"a": 1},\n\n]', 3, "expected an object"),
        ('[{"a": 1},\n', 2, "expected an object"),
        ('[{"a": 1}\n', 2, "expected ','"),
        ('[{"a": 1}]\n{"b": 2}', 2, "after the end"),
        ('[{"a": 1},\n{"a" 2}]', 2, "not JSON"),
        ("\n5", 2, "expected an object"),
        ('{"a": 1}\n[', 2, "expected an object"),
    ],
)
def test_a_fault_is_told_with_its_line(tmp_path: Path, text: str, line: int, what: str) -> None:
    path = file(tmp_path, text)
    with pytest.raises(DataError, match=what) as error:
        list(read_values(path))
    assert str(error.value).startswith(f"{path}:{line}: ")


def test_a_list_longer_than_the_window_is_never_held(tmp_path: Path) -> None:
    record = {"a": "x" * 1000}
    path = file(tmp_path, json.dumps([record] * 5000))
    values = lines._Values(path, open(path, encoding="utf-8"))  # noqa: SIM115
    longest = 0
    for _ in values:
        longest = max(longest, len(values._text))
    assert longest < 2 * lines._CHUNK < path.stat().st_size


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="absent"):
        list(read_values(tmp_path / "absent"))
    with pytest.raises(DataError, match="absent"):
        list(read_lines(tmp_path / "absent"))


def test_bytes_that_are_no_text_are_said(tmp_path: Path) -> None:
    path = tmp_path / "latin.json"
    path.write_bytes('[{"a": "é"}]'.encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.json"):
        list(read_values(path))
