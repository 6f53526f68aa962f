"""The cache's directory: one maker for each file, room for the files used last."""

import os
import time
from pathlib import Path

import pytest

from thinkedit.envs.editors.disk import Disk

KEYS = [f"{k:02x}" * 32 for k in range(16)]


def disk(root: Path, max_bytes: int = 1000) -> Disk:
    return Disk(root, ".bin", max_bytes)


def used_before(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def size(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*.bin"))


def test_what_was_written_is_read_by_whoever_shares_the_directory(tmp_path: Path) -> None:
    assert disk(tmp_path).read(KEYS[0]) is None
    disk(tmp_path).write(KEYS[0], b"one")
    disk(tmp_path).write(KEYS[0], b"two")
    assert disk(tmp_path).read(KEYS[0]) == b"two"
    disk(tmp_path).remove(KEYS[0])
    assert disk(tmp_path).read(KEYS[0]) is None


def test_files_are_readable_by_others_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o022)
    disk(tmp_path).write(KEYS[0], b"one")
    os.umask(before)
    assert disk(tmp_path).path(KEYS[0]).stat().st_mode & 0o777 == 0o644


def test_beyond_the_bound_the_files_used_least_lately_go(tmp_path: Path) -> None:
    shared = disk(tmp_path)
    for age, key in enumerate(KEYS[:10]):
        shared.write(key, bytes(100))
        used_before(shared.path(key), 100 + age)
    shared.read(KEYS[9])  # the oldest, and now the newest
    shared.write(KEYS[10], bytes(100))
    assert size(tmp_path) == 900
    assert [k for k in range(11) if shared.path(KEYS[k]).exists()] == [0, 1, 2, 3, 4, 5, 6, 9, 10]


def test_up_to_the_bound_nothing_goes(tmp_path: Path) -> None:
    shared = disk(tmp_path)
    for key in KEYS[:10]:
        shared.write(key, bytes(100))
    assert size(tmp_path) == 1000


def test_the_bound_counts_what_all_wrote_and_a_smaller_one_wins(tmp_path: Path) -> None:
    for key in KEYS:
        disk(tmp_path, 10_000).write(key, bytes(100))
    assert size(tmp_path) == 1600
    disk(tmp_path, 500).write(KEYS[0], bytes(100))
    assert size(tmp_path) <= 500


@pytest.mark.parametrize("said", ["", "12x", None])
def test_a_lost_count_is_taken_anew(tmp_path: Path, said: str | None) -> None:
    for key in KEYS[:12]:
        disk(tmp_path, 10_000).write(key, bytes(100))
    if said is None:
        (tmp_path / "size").unlink()
    else:
        (tmp_path / "size").write_text(said)
    disk(tmp_path, 10_000).write(KEYS[12], bytes(100))
    assert int((tmp_path / "size").read_text()) == 1300


def test_what_dead_processes_left_goes_with_the_next_eviction_and_nothing_newer(tmp_path: Path) -> None:
    shared = disk(tmp_path, 100)
    shared.write(KEYS[0], bytes(30))
    folder = shared.path(KEYS[0]).parent
    for name, age in (("a.lock", 9000), ("b.partial", 9000), ("c.lock", 60), ("d.partial", 60)):
        (folder / name).write_bytes(bytes(500))
        used_before(folder / name, age)
    shared.write(KEYS[1], bytes(80))
    assert sorted(p.name for p in folder.iterdir() if p.suffix != ".bin") == ["c.lock", "d.partial"]
    assert shared.read(KEYS[1]) is not None, "partial files and locks count as nothing"


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    shared = disk(tmp_path)
    shared.path(KEYS[0]).mkdir(parents=True)  # in the file's place, so that it can't be put there
    with pytest.raises(OSError, match="directory"):
        shared.write(KEYS[0], b"one")
    assert not list(tmp_path.rglob("*.partial"))


def test_a_lock_has_one_holder_and_leaves_no_file(tmp_path: Path) -> None:
    one, two = disk(tmp_path), disk(tmp_path)
    for _ in range(3):
        handle = one.try_lock(KEYS[0])
        assert handle is not None
        assert two.try_lock(KEYS[0]) is None
        other = two.try_lock(KEYS[1])
        assert other is not None
        one.unlock(KEYS[0], handle)
        one.unlock(KEYS[1], other)
    assert not list(tmp_path.rglob("*.lock"))


def test_who_opened_a_lock_that_was_removed_takes_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = disk(tmp_path)
    held = shared.try_lock(KEYS[0])
    assert held is not None
    opened, real = [], os.open

    def slow_open(*args: object) -> int:
        opened.append(real(*args))  # type: ignore[arg-type]
        if len(opened) == 1:
            shared.unlock(KEYS[0], held)  # the holder is done just after we opened its file
        return opened[-1]

    monkeypatch.setattr(os, "open", slow_open)
    handle = shared.try_lock(KEYS[0])
    assert handle is not None
    assert len(opened) == 2
    monkeypatch.undo()
    assert shared.try_lock(KEYS[0]) is None
    shared.unlock(KEYS[0], handle)
