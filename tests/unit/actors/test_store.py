"""The trajectory store keeps everything, each picture once, and survives its writers."""

import copy
import json
import pickle
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from episodes import play
from same import differences

from thinkedit.actors.images import ImageFolder, image_key
from thinkedit.actors.rows import SCHEMA, VERSION_KEY
from thinkedit.actors.store import TrajectoryStore
from thinkedit.errors import DataError
from thinkedit.types import Episode, Outcome


@pytest.fixture(scope="module")
def played() -> list[Episode]:
    episodes = play(60, garbled=0.2, failing=0.15, group_size=2, step=3)
    outcomes = {turn.outcome for episode in episodes for turn in episode.turns}
    assert outcomes == {Outcome.OK, Outcome.MALFORMED, Outcome.EDITOR_FAILED}
    assert any(episode.first is None for episode in episodes)
    return episodes


@pytest.fixture
def store(tmp_path: Path, played: list[Episode]) -> TrajectoryStore:
    with TrajectoryStore(tmp_path / "trajectories", shard_size=25) as store:
        for episode in played:
            store.append(episode)
    return store


def test_episodes_come_back_as_they_were(store: TrajectoryStore, played: list[Episode]) -> None:
    back = list(store.read(tokens=True))
    assert len(back) == len(played) == len(store)
    assert [d for a, b in zip(played, back, strict=True) for d in differences(a, b)] == []


def test_without_tokens_the_policy_versions_remain(store: TrajectoryStore, played: list[Episode]) -> None:
    for before, after in zip(played, store.read(), strict=True):
        assert [s.policy_version for s in after.sampling] == [s.policy_version for s in before.sampling]
        assert all(s.token_ids == () and s.logprobs == () for s in after.sampling)


def test_tokens_are_left_out_of_the_file_on_demand(tmp_path: Path, played: list[Episode]) -> None:
    with TrajectoryStore(tmp_path, keep_tokens=False) as store:
        store.append(played[0])
    (back,) = store.read(tokens=True)
    assert len(back.sampling) == len(played[0].sampling)
    assert all(s.token_ids == () for s in back.sampling)


def test_each_picture_is_on_disk_once(store: TrajectoryStore, played: list[Episode]) -> None:
    shown = {image_key(e.task.source) for e in played} | {
        image_key(t.edited) for e in played for t in e.turns
    }
    shown |= {image_key(e.first_edit) for e in played if e.first_edit is not None}
    files = {path.stem for path in store.images.root.rglob("*.png")}
    assert files == shown


def test_reading_opens_no_picture_until_it_is_looked_at(store: TrajectoryStore) -> None:
    for path in store.images.root.rglob("*.png"):
        path.unlink()
    episode = next(e for e in store.read() if e.turns)
    assert episode.turns[0].reply
    with pytest.raises(DataError, match=r"cannot read the image .*\.png"):
        _ = episode.turns[0].edited


def test_pictures_read_back_are_read_only(store: TrajectoryStore) -> None:
    source = next(store.read()).task.source
    with pytest.raises(ValueError, match="read-only"):
        source[0, 0, 0] = 1


def test_stored_episodes_travel_light_and_whole(store: TrajectoryStore) -> None:
    episode = next(e for e in store.read() if len(e.turns) == 2)
    sent = pickle.dumps(episode)
    assert len(sent) < episode.task.source.nbytes / 2
    assert differences(pickle.loads(sent), episode) == []
    assert differences(copy.deepcopy(episode), episode) == []


def test_a_filter_picks_episodes(store: TrajectoryStore, played: list[Episode]) -> None:
    failed = list(store.read(where=pc.field("outcome") != "ok"))
    assert {e.uid for e in failed} == {e.uid for e in played if e.outcome is not Outcome.OK}


def test_an_empty_or_missing_store_reads_as_nothing(tmp_path: Path) -> None:
    store = TrajectoryStore(tmp_path / "nowhere")
    assert len(store) == 0
    assert list(store.read()) == []
    store.close()
    assert not (tmp_path / "nowhere").exists()


def test_what_was_flushed_is_readable_while_writing_goes_on(tmp_path: Path, played: list[Episode]) -> None:
    store = TrajectoryStore(tmp_path)
    store.append(played[0])
    store.flush()
    store.append(played[1])
    assert [e.uid for e in TrajectoryStore(tmp_path).read()] == [played[0].uid]


def test_leftovers_of_a_killed_writer_are_ignored(store: TrajectoryStore, played: list[Episode]) -> None:
    (store.root / ".tmp-123-episodes-1-w-0.parquet").write_bytes(b"PAR1 half a shard")
    assert len(list(store.read())) == len(played)


def test_threads_may_append_at_once(tmp_path: Path, played: list[Episode]) -> None:
    store = TrajectoryStore(tmp_path, shard_size=7)
    threads = [
        threading.Thread(target=lambda part=played[i::4]: [store.append(e) for e in part]) for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
    assert sorted(e.uid for e in store.read()) == sorted(e.uid for e in played)


@pytest.mark.parametrize(
    ("version", "advice"), [("99", "update thinkedit"), ("0", "the version that wrote it")]
)
def test_another_schema_version_is_refused_with_advice(
    store: TrajectoryStore, version: str, advice: str
) -> None:
    table = pq.read_table(store.shards()[0]).replace_schema_metadata({VERSION_KEY: version})
    pq.write_table(table, store.root / "episodes-0-other-0.parquet")
    with pytest.raises(DataError, match=f"episodes-0-other-0.parquet has .* version {version}.*{advice}"):
        next(store.read())


def test_a_foreign_or_broken_shard_is_named(store: TrajectoryStore) -> None:
    pq.write_table(pa.table({"x": [1]}), store.root / "episodes-0-foreign.parquet")
    with pytest.raises(DataError, match=r"episodes-0-foreign\.parquet was not written by thinkedit"):
        len(store)
    (store.root / "episodes-0-foreign.parquet").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"episodes-0-foreign\.parquet is not a parquet file"):
        len(store)


def test_what_does_not_fit_is_refused_and_nothing_else_lost(tmp_path: Path, played: list[Episode]) -> None:
    store = TrajectoryStore(tmp_path)
    odd = [copy.copy(played[0]) for _ in range(3)]
    odd[0].seed = 2**70
    odd[1].tags = {"lock": threading.Lock()}
    odd[2].first_edit = np.zeros((4, 4), np.uint8)
    for episode in odd:
        with pytest.raises(DataError):
            store.append(episode)
    store.append(played[1])
    store.close()
    assert [e.uid for e in store.read()] == [played[1].uid]


def test_lone_surrogates_are_kept_visibly(tmp_path: Path, played: list[Episode]) -> None:
    episode = copy.copy(next(e for e in played if e.turns))
    episode.tags = {"note": "\ud800"}
    from thinkedit.actors.rows import changed

    episode.turns = [changed(episode.turns[0], reply="a\ud800b")]
    with TrajectoryStore(tmp_path) as store:
        store.append(episode)
    (back,) = store.read()
    assert back.turns[0].reply == r"a\ud800b"
    assert back.tags == {"note": "\ud800"}


def test_the_turn_table_has_a_row_per_turn(store: TrajectoryStore, played: list[Episode]) -> None:
    frame = store.frame()
    turns = [(e, t) for e in played for t in e.turns]
    assert len(frame) == len(turns)
    for row, (episode, turn) in zip(frame.to_dict("records"), turns, strict=True):
        assert (row["uid"], row["index"], row["outcome"]) == (episode.uid, turn.index, str(turn.outcome))
        assert row["well_formed"] == (turn.critique is not None)
        assert row["before_semantic"] == turn.before.scores.semantic
        expected = turn.reward.total if turn.reward else np.nan
        np.testing.assert_equal(row["total"], expected)
        for name, value in (turn.reward.terms if turn.reward else {}).items():
            assert row[f"term/{name}"] == value


def test_the_episode_table_has_a_row_per_episode(store: TrajectoryStore, played: list[Episode]) -> None:
    frame = store.frame("episode")
    assert len(frame) == len(played)
    for row, episode in zip(frame.to_dict("records"), played, strict=True):
        assert row["turns"] == len(episode.turns)
        final = episode.final.scores.quality if episode.final else np.nan
        np.testing.assert_equal(row["final_quality"], final)
        assert row["time/edit_s"] == episode.timings["edit_s"]


def test_equal_pixels_of_another_shape_are_another_picture(tmp_path: Path) -> None:
    folder = ImageFolder(tmp_path)
    wide, tall = np.zeros((2, 8, 3), np.uint8), np.zeros((8, 2, 3), np.uint8)
    keys = folder.add(wide), folder.add(tall)
    assert keys[0] != keys[1]
    assert folder.get(keys[0]).shape == (2, 8, 3)


def test_verdict_notes_and_references_survive_as_json(store: TrajectoryStore, played: list[Episode]) -> None:
    back = next(store.read())
    assert dict(back.task.reference) == json.loads(json.dumps(dict(played[0].task.reference)))


def test_the_schema_is_the_one_documented(store: TrajectoryStore) -> None:
    assert pq.read_schema(store.shards()[0]).equals(SCHEMA)
