from __future__ import annotations

from pathlib import Path

import pytest

from thinkedit.data import journal
from thinkedit.data.journal import Journal, JournalInUse, SharedCount


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


def test_those_who_share_a_number_work_side_by_side_and_others_wait(tmp_path: Path) -> None:
    path = tmp_path / ".shards"
    with SharedCount(path, 12), SharedCount(path, 12):
        with pytest.raises(JournalInUse, match="in 12 parts, this one would in 3"), SharedCount(path, 3):
            pass
        with SharedCount(path, 12):
            pass
    with SharedCount(path, 3), SharedCount(path, 3):  # nobody holds it any more
        pass
