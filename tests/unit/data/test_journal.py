from __future__ import annotations

from pathlib import Path

import pytest

from thinkedit.data import journal
from thinkedit.data.journal import Journal, JournalInUse


@pytest.mark.parametrize("chunk", [1, 3, 2**16])
@pytest.mark.parametrize(
    ("left", "kept"),
    [
        (b"", b""),
        (b"one\ntwo\n", b"one\ntwo\n"),
        (b"one\ntw", b"one\n"),
        (b"on", b""),
        (b"one\n\ntw", b"one\n\n"),
    ],
)
def test_half_a_line_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: bytes, kept: bytes, chunk: int
) -> None:
    monkeypatch.setattr(journal, "_CHUNK", chunk)
    path = tmp_path / "deep" / "file.jsonl"
    path.parent.mkdir()
    path.write_bytes(left)
    with Journal(path) as opened:
        assert path.read_bytes() == kept
        opened.append(b"new")
        assert path.read_bytes() == kept + b"new\n"


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    with Journal(path), pytest.raises(JournalInUse, match="another process"), Journal(path):
        pass
    with Journal(path) as again:
        again.append(b"x")
