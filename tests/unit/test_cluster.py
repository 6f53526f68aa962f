import pytest

pytest.importorskip("ray")

import ray

from thinkedit.cluster import ClusterFailed, start_ray

TOO_LATE = "The current node timed out during startup. This could happen because ..."


class Starts:
    """Stands for `ray.init`, which can't be made to miss its deadline at will."""

    def __init__(self, *failures: Exception) -> None:
        self.failures, self.calls = list(failures), 0

    def __call__(self, **settings: object) -> None:
        assert settings == {"num_cpus": 1}
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)


def test_a_node_that_misses_its_deadline_is_started_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = Starts(Exception(TOO_LATE))
    monkeypatch.setattr(ray, "init", starts)
    start_ray(num_cpus=1)
    assert starts.calls == 2


def test_twice_too_late_is_an_error_that_names_the_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", Starts(Exception(TOO_LATE), Exception(TOO_LATE)))
    with pytest.raises(ClusterFailed, match="session_latest/logs"):
        start_ray(num_cpus=1)


def test_other_failures_are_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = Starts(RuntimeError("already called"))
    monkeypatch.setattr(ray, "init", starts)
    with pytest.raises(RuntimeError, match="already called"):
        start_ray(num_cpus=1)
    assert starts.calls == 1
