"""The stream of tasks: complete epochs, and the same place after a resume."""

from omegaconf import OmegaConf

from thinkedit.learner.prompts import TaskStream


def stream(count: int | None, length: int, seed: int = 0) -> TaskStream:
    section = {"split": "train", "length": length, "task_count": count, "seed": seed}
    return TaskStream("train", None, OmegaConf.create({"streams": {"train": section}}))


def indices(source: TaskStream) -> list[int]:
    return [source[i]["index"] for i in range(len(source))]


def test_an_endless_source_is_read_in_order() -> None:
    assert indices(stream(None, 5)) == [0, 1, 2, 3, 4]


def test_seeds_of_an_endless_source_share_no_task() -> None:
    assert not set(indices(stream(None, 50, seed=0))) & set(indices(stream(None, 50, seed=1)))


def test_each_epoch_visits_every_task_once() -> None:
    seen = indices(stream(4, 8))
    assert sorted(seen[:4]) == sorted(seen[4:]) == [0, 1, 2, 3]


def test_epochs_differ_in_order() -> None:
    seen = indices(stream(50, 100))
    assert seen[:50] != seen[50:]


def test_a_longer_stream_starts_like_a_shorter_one() -> None:
    assert indices(stream(7, 40))[:20] == indices(stream(7, 20))


def test_seeds_give_different_orders() -> None:
    assert indices(stream(50, 50, seed=0)) != indices(stream(50, 50, seed=1))
