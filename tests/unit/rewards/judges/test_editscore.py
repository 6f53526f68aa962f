"""EditScore's form over a real HTTP server: its scale, its strictness, its errors."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from chat_server import Answer, ChatServer, Fails, Hangs, Raw, Says, marks

from thinkedit import plugins
from thinkedit.configs.load import load_config
from thinkedit.errors import (
    ConfigError,
    JudgeRefused,
    JudgeUnreachable,
    JudgeUnreadable,
    ServiceError,
)
from thinkedit.rewards.judges.base import Judge
from thinkedit.rewards.judges.editscore import EditScoreConfig, EditScoreJudge
from thinkedit.testing import JudgeContract
from thinkedit.types import RGB

SOURCE = np.random.default_rng(1).integers(0, 256, (24, 32, 3), dtype=np.uint8)
EDITED = 255 - SOURCE
BAD: list[tuple[Answer, type[ServiceError], str]] = [
    (marks(20, 26), JudgeUnreadable, "26 is outside [0, 25]"),
    (marks(-1, 20), JudgeUnreadable, "-1 is outside [0, 25]"),
    (marks(20, 25.5), JudgeUnreadable, "25.5 is outside [0, 25]"),
    (marks(True, 20), JudgeUnreadable, "True is not a number"),
    (Says('{"reasoning": "", "score": [20]}'), JudgeUnreadable, "1 items"),
    (Says('{"reasoning": "", "score": [20, 20, 20]}'), JudgeUnreadable, "3 items"),
    (Says('{"reasoning": "", "score": 20}'), JudgeUnreadable, "not a list"),
    (Says('{"reasoning": "a long look'), JudgeUnreadable, "no"),
    (Says("12.5"), JudgeUnreadable, "no"),
    (Says(None, refusal="I can't help with that."), JudgeRefused, "can't help"),
    (Fails(429, headers={"Retry-After": "0"}), JudgeUnreachable, "HTTP 429"),
    (Raw(b"[]"), JudgeUnreachable, "not a chat completion"),
]


def judge_at(server: ChatServer, **options: Any) -> EditScoreJudge:
    quick: dict[str, Any] = dict(
        model="grader", base_url=server.base_url, request_timeout_s=20.0, backoff_s=0.01, max_wait_s=2.0
    )
    return EditScoreJudge(EditScoreConfig(**(quick | options)))


class TestEditScoreJudge(JudgeContract):
    @pytest.fixture(autouse=True)
    def _serve(self, server: ChatServer) -> Iterator[None]:
        server.answers = {"sc": [marks(20, 15)], "pq": [marks(25, 22)]}
        self._at, self._made = server, list[EditScoreJudge]()
        yield
        for judge in self._made:
            judge.close()

    def make(self) -> Judge:
        self._made.append(judge_at(self._at))
        return self._made[-1]

    def source(self) -> RGB:
        return SOURCE.copy()

    def edited(self) -> RGB:
        return EDITED.copy()

    def instruction(self) -> str:
        return "paint it blue"

    def slow(self) -> Judge:
        self._at.answers["sc"] = [Hangs()]
        self._made.append(judge_at(self._at, request_timeout_s=0.4, tries=1))
        return self._made[-1]

    def malformed(self) -> Iterator[Judge]:
        for answer, *_ in BAD:
            self._at.answers["pq"] = [answer]
            yield self.make()


def test_the_lower_mark_of_25_becomes_a_score_of_10(server: ChatServer) -> None:
    server.answers = {"sc": [marks(20, 15, "two of three")], "pq": [marks(25, 25)]}
    verdict = judge_at(server).judge(SOURCE, EDITED, "paint it blue")
    assert (verdict.scores.semantic, verdict.scores.quality) == (6.0, 10.0)
    assert verdict.notes["top"] == 25
    assert verdict.notes["semantic"]["marks"] == [[20, 15]]
    assert verdict.judge_id == "editscore@1/grader"


@pytest.mark.parametrize("mark", range(26))
def test_every_mark_of_the_scale_lands_in_order_within_0_and_10(server: ChatServer, mark: int) -> None:
    server.answers = {"sc": [marks(mark, 25)], "pq": [marks(25, mark)]}
    scores = judge_at(server).judge(SOURCE, EDITED, "paint it blue").scores
    assert scores.semantic == scores.quality == pytest.approx(mark * 0.4, abs=1e-12)
    assert 0 <= scores.semantic <= 10


def test_the_reasoning_comes_first_and_the_scale_is_told(server: ChatServer) -> None:
    judge_at(server).judge(SOURCE, EDITED, "paint it blue")
    for call in server.calls:
        said = json.dumps(call.body["messages"])
        assert "0 to 25" in said
        assert said.index("reasoning") < said.index("score")
        schema = call.body["response_format"]["json_schema"]["schema"]
        assert list(schema["properties"]) == ["reasoning", "score"]
        assert schema["properties"]["score"]["items"]["maximum"] == 25


@pytest.mark.parametrize(("answer", "kind", "why"), BAD)
def test_what_is_no_verdict_is_typed_after_three_tries_and_never_a_middling_score(
    server: ChatServer, answer: Answer, kind: type[ServiceError], why: str
) -> None:
    server.answers["sc"] = [answer]
    with pytest.raises(ServiceError) as caught:
        judge_at(server).judge(SOURCE, EDITED, "paint it blue")
    assert type(caught.value) is kind
    assert why in str(caught.value)
    assert "(grader), semantic question" in str(caught.value)
    assert (server.asked("sc"), server.asked("pq")) == (3, 1)


def test_passes_are_averaged_with_seeds_from_42(server: ChatServer) -> None:
    by_seed = {42: marks(20, 15), 43: marks(25, 25), 44: marks(10, 5)}
    server.choose = lambda call: by_seed[call.body["seed"]] if call.half == "sc" else marks(20, 20)
    verdict = judge_at(server, samples=3, temperature=0.7, seed=42).judge(SOURCE, EDITED, "paint it blue")
    assert verdict.scores.semantic == pytest.approx((6 + 10 + 2) / 3)
    assert verdict.scores.quality == pytest.approx(8)


def test_it_is_another_judge_than_viescore_at_the_same_model(server: ChatServer) -> None:
    from thinkedit.rewards.judges.viescore import VIEScoreConfig, VIEScoreJudge

    other = VIEScoreJudge(VIEScoreConfig(model="grader", base_url=server.base_url, api_key_env=None))
    mine, theirs = judge_at(server).settings(), other.settings()
    assert mine["prompt_hash"] != theirs["prompt_hash"]


def test_the_config_group_builds_it_by_name(server: ChatServer) -> None:
    options = load_config(
        "demo", ["judge=editscore", f"judge.options.base_url={server.base_url}"]
    ).judge.options
    judge = plugins.build("judges", "editscore", options)
    assert isinstance(judge, EditScoreJudge)
    server.answers = {"sc": [marks(20, 20)], "pq": [marks(25, 25)]}
    assert judge.judge(SOURCE, EDITED, "paint it blue").scores.overall == pytest.approx(80**0.5)
    judge.close()


def test_the_yaml_says_what_the_class_does() -> None:
    options = load_config("demo", ["judge=editscore"]).judge.options
    own = {"model", "seed"}
    defaults = asdict(EditScoreConfig(model="x"))
    assert {k: v for k, v in options.items() if k not in own} == {
        k: v for k, v in defaults.items() if k in options and k not in own
    }


def test_a_judge_without_a_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="model"):
        plugins.build("judges", "editscore", {})
