"""The VIEScore judge against a real HTTP server that behaves, refuses, lies, stalls and fails."""

import asyncio
import base64
import io
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from time import monotonic
from typing import Any

import numpy as np
import pytest
from chat_server import Answer, Call, ChatServer, Fails, Hangs, Raw, Says, marks
from patience import eventually
from PIL import Image

from thinkedit import plugins
from thinkedit.configs.load import load_config
from thinkedit.envs.editors.cache import CachedJudge
from thinkedit.errors import (
    ConfigError,
    JudgeError,
    JudgeRefused,
    JudgeUnreachable,
    JudgeUnreadable,
    ServiceError,
    ServiceTimeout,
    UnknownName,
)
from thinkedit.rewards.judges.base import Judge
from thinkedit.rewards.judges.viescore import VIEScoreConfig, VIEScoreJudge
from thinkedit.testing import JudgeContract
from thinkedit.types import RGB

KEY = "sk-secret-1234567890"
SOURCE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
EDITED = 255 - SOURCE


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THINKEDIT_TEST_KEY", KEY)


def judge_at(server: ChatServer, **options: Any) -> VIEScoreJudge:
    quick: dict[str, Any] = dict(
        model="grader",
        base_url=server.base_url,
        api_key_env="THINKEDIT_TEST_KEY",
        request_timeout_s=20.0,
        backoff_s=0.01,
        max_wait_s=2.0,
    )
    return VIEScoreJudge(VIEScoreConfig(**(quick | options)))


def failure(judge: Judge, instruction: str = "paint it blue") -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        judge.judge(SOURCE, EDITED, instruction)
    return caught.value


class TestVIEScoreJudge(JudgeContract):
    @pytest.fixture(autouse=True)
    def _serve(self, server: ChatServer) -> Iterator[None]:
        self._at, self._made = server, list[VIEScoreJudge]()
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


def test_it_asks_two_questions_with_the_right_pictures_in_order(server: ChatServer) -> None:
    verdict = judge_at(server).judge(SOURCE, EDITED, 'paint "it" blue')
    assert (verdict.scores.semantic, verdict.scores.quality) == (6, 7)
    assert sorted(call.half for call in server.calls) == ["pq", "sc"]
    shown = {call.half: pictures_of(call) for call in server.calls}
    assert [np.array_equal(a, b) for a, b in zip(shown["sc"], (SOURCE, EDITED), strict=True)] == [True, True]
    assert [np.array_equal(a, EDITED) for a in shown["pq"]] == [True]
    questions = {call.half: call.body["messages"][-1]["content"][0]["text"] for call in server.calls}
    assert json.dumps('paint "it" blue') in questions["sc"]
    assert "blue" not in questions["pq"]
    for call in server.calls:
        assert call.body["temperature"] == 0
        assert call.body["max_tokens"] == 1000
        assert call.body["messages"][0]["role"] == "system"
        assert call.headers["Authorization"] == f"Bearer {KEY}"


def pictures_of(call: Call) -> list[RGB]:
    urls = [part["image_url"]["url"] for part in call.body["messages"][-1]["content"][1:]]
    return [np.array(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))) for url in urls]


def test_notes_keep_the_raw_replies_and_what_they_took(server: ChatServer) -> None:
    server.answers["pq"] = [Fails(500), marks(9, 7, "clean")]
    notes = judge_at(server).judge(SOURCE, EDITED, "paint it blue").notes
    assert notes["semantic"] == {"marks": [[8, 6]], "replies": [marks(8, 6).text], "faults": []}
    assert notes["quality"]["replies"] == [marks(9, 7, "clean").text]
    assert notes["quality"]["faults"] == ["HTTP 500: out of order"]
    assert (notes["calls"], notes["prompt_tokens"], notes["completion_tokens"]) == (3, 100, 20)
    assert notes["models"] == ["grader-2026"]
    assert "variance" not in notes


@pytest.mark.parametrize(
    "text",
    [
        '```json\n{"reasoning": "fine", "score": [8, 6]}\n```',
        '{"reasoning": "the sign says "OPEN" now", "score": [8, 6]}',
        '{"reasoning": "fine", "score": ["8", "6"]}',
    ],
)
def test_a_reply_that_can_be_read_costs_one_call(server: ChatServer, text: str) -> None:
    server.answers["sc"] = [Says(text)]
    assert judge_at(server).judge(SOURCE, EDITED, "paint it blue").scores.semantic == 6
    assert len(server.calls) == 2


REFUSAL = Says(None, refusal="I can't help with that.")
BAD: list[tuple[Answer, type[ServiceError], str]] = [
    (Says('{"reasoning": "", "score": [8]}'), JudgeUnreadable, "1 items"),
    (Says('{"reasoning": "", "score": [8, 11]}'), JudgeUnreadable, "outside"),
    (Says('{"reasoning": "", "score": [true, 6]}'), JudgeUnreadable, "True is not a number"),
    (Says("I can't say."), JudgeUnreadable, "no .score. list"),
    (Says('{"reasoning": "it goes on', finish="length"), JudgeUnreadable, "cut off at max_tokens"),
    (Says('{"score": [9, 9]}', finish="length"), JudgeUnreadable, "cut off at max_tokens"),
    (Says(None, finish="length"), JudgeUnreadable, "max_tokens"),
    (REFUSAL, JudgeRefused, "I can't help"),
    (Says(None, finish="content_filter"), JudgeRefused, "content filter"),
    (Says('{"score": [8', finish="content_filter"), JudgeRefused, "content filter"),
    (Says(""), JudgeRefused, "empty"),
    (Says(" \n"), JudgeRefused, "empty"),
    (Fails(500), JudgeUnreachable, "HTTP 500: out of order"),
    (Fails(503, "busy"), JudgeUnreachable, "HTTP 503"),
    (Fails(429, headers={"Retry-After": "0"}), JudgeUnreachable, "HTTP 429"),
    (Raw(b"<html>hello</html>", "text/html"), JudgeUnreachable, "not a chat completion"),
    (Raw(b'{"error": {"message": "no such route"}}'), JudgeUnreachable, "no such route"),
    (Raw(b'{"choices": []}'), JudgeUnreachable, "not a chat completion"),
    (Raw(b'{"choices": [{}]}'), JudgeUnreachable, "not a chat completion"),
    (Raw(b'{"choices": [{"message": {"content": 7}}]}'), JudgeRefused, "empty"),
    (Raw(b"[1, 2]"), JudgeUnreachable, "not a chat completion"),
    (Raw(b'{"choices": ['), JudgeUnreachable, "JSON"),
    (Raw(b""), JudgeUnreachable, ""),
]


@pytest.mark.parametrize(("answer", "kind", "why"), BAD, ids=lambda value: getattr(value, "__name__", None))
def test_a_bad_half_is_tried_three_times_and_typed_the_same_each_run(
    server: ChatServer, answer: Answer, kind: type[ServiceError], why: str
) -> None:
    server.answers["pq"] = [answer]
    judge, errors = judge_at(server), []
    for _ in range(2):
        server.reset()
        errors.append(failure(judge))
        assert (server.asked("sc"), server.asked("pq")) == (1, 3)
    assert [type(error) for error in errors] == [kind, kind]
    assert str(errors[0]) == str(errors[1])
    assert why.replace(".", "") in str(errors[0]).replace('"', "")
    assert "try 3 of 3" in str(errors[0])


@pytest.mark.parametrize("half", ["sc", "pq"])
@pytest.mark.parametrize("answer", [bad[0] for bad in BAD[::3]])
def test_only_the_half_that_failed_is_asked_again(server: ChatServer, half: str, answer: Answer) -> None:
    good = server.answers[half][0]
    server.answers[half] = [answer, answer, good]
    verdict = judge_at(server).judge(SOURCE, EDITED, "paint it blue")
    assert (verdict.scores.semantic, verdict.scores.quality) == (6, 7)
    assert server.asked(half) == 3
    assert len(server.calls) == 4


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Fails(400, {"error": {"message": "filtered", "code": "content_filter"}}), JudgeRefused),
        (Fails(400, {"error": {"message": "hit by our content_policy"}}), JudgeRefused),
        (Fails(400, {"error": {"message": "no such option"}}), JudgeUnreachable),
        (Fails(401, {"error": {"message": f"wrong key {KEY}, try another"}}), JudgeUnreachable),
        (Fails(404, {"error": {"message": "no such model"}}), JudgeUnreachable),
        (Fails(429, {"error": {"message": "pay first", "code": "insufficient_quota"}}), JudgeUnreachable),
        (Fails(429, headers={"Retry-After": "3600"}), JudgeUnreachable),
        (
            Fails(503, headers={"Retry-After": format_datetime(datetime.now(UTC) + timedelta(days=1))}),
            JudgeUnreachable,
        ),
    ],
)
def test_what_another_try_cannot_mend_is_asked_once(
    server: ChatServer, answer: Answer, kind: type[ServiceError]
) -> None:
    server.answers["sc"] = [answer]
    error = failure(judge_at(server))
    assert type(error) is kind
    assert (server.asked("sc"), server.asked("pq")) == (1, 1)
    assert KEY not in str(error)


def test_the_semantic_half_names_the_failure_when_both_fail(server: ChatServer) -> None:
    server.answers = {"sc": [Fails(500), Fails(500), REFUSAL], "pq": [Fails(400)]}
    for _ in range(3):
        server.reset()
        assert type(failure(judge_at(server))) is JudgeRefused
        assert (server.asked("sc"), server.asked("pq")) == (3, 1)


def test_retry_after_is_honoured(server: ChatServer) -> None:
    server.answers["sc"] = [Fails(429, headers={"Retry-After": "0.6"}), marks(8, 6)]
    judge_at(server).judge(SOURCE, EDITED, "paint it blue")
    first, second = (call.at for call in server.calls if call.half == "sc")
    assert second - first >= 0.6


@pytest.mark.parametrize("answer", [Says("no idea"), REFUSAL])
def test_replies_that_could_not_be_used_count_as_tokens_spent(server: ChatServer, answer: Answer) -> None:
    server.answers["sc"] = [answer, marks(8, 6)]
    notes = judge_at(server).judge(SOURCE, EDITED, "paint it blue").notes
    assert (notes["calls"], notes["prompt_tokens"], notes["completion_tokens"]) == (3, 150, 30)


def test_waits_grow_and_differ(server: ChatServer) -> None:
    server.answers["sc"] = [Fails(500)]
    failure(judge_at(server, backoff_s=0.2, tries=3))
    at = [call.at for call in server.calls if call.half == "sc"]
    waits = [b - a for a, b in pairwise(at)]
    assert waits[0] >= 0.1
    assert waits[1] >= 0.2
    with_jitter = {judge_at(server)._chat._wait_s(1, 0.0) for _ in range(8)}
    assert len(with_jitter) > 1


@pytest.mark.parametrize("drips", [False, True])
def test_a_server_that_hangs_is_a_timeout_after_a_bounded_time(server: ChatServer, drips: bool) -> None:
    server.answers["pq"] = [Hangs(drips)]
    began = monotonic()
    error = failure(judge_at(server, request_timeout_s=0.4, tries=2))
    assert type(error) is ServiceTimeout
    assert (server.asked("sc"), server.asked("pq")) == (1, 2)
    assert monotonic() - began < 10


def test_nobody_listening_is_unreachable(server: ChatServer) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        error = failure(judge_at(server, base_url=f"http://127.0.0.1:{port}/v1"))
    assert type(error) is JudgeUnreachable


def test_cancelling_ends_the_calls_under_way(server: ChatServer) -> None:
    server.answers = {"sc": [Hangs()], "pq": [Hangs()]}
    judge = judge_at(server)

    async def impatient() -> None:
        judging = asyncio.ensure_future(judge.judge_async(SOURCE, EDITED, "paint it blue"))
        while len(server.calls) < 2:
            await asyncio.sleep(0.02)
        judging.cancel()
        await judging

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(impatient())
    eventually(lambda: server.dropped == 2)
    assert len(server.calls) == 2


def test_closing_it_frees_whoever_still_waits(server: ChatServer) -> None:
    server.answers = {"sc": [Hangs()], "pq": [Hangs()]}
    judge = judge_at(server)

    async def waiting() -> list[Any]:
        asked = [
            asyncio.create_task(judge.judge_async(SOURCE, EDITED, "paint it blue")),
            asyncio.create_task(asyncio.to_thread(judge.judge, SOURCE, EDITED, "paint it blue")),
        ]
        while server.in_flight < 4:
            await asyncio.sleep(0.02)
        await asyncio.to_thread(judge.close)
        return await asyncio.gather(*asked, return_exceptions=True)

    assert [type(result) for result in asyncio.run(waiting())] == [JudgeError, JudgeError]


def test_blocking_calls_work_inside_a_running_loop_and_from_many_threads(server: ChatServer) -> None:
    judge = judge_at(server)

    async def inside() -> float:
        return judge.judge(SOURCE, EDITED, "paint it blue").scores.semantic

    async def many() -> list[Any]:
        return await asyncio.gather(
            *(asyncio.to_thread(judge.judge, SOURCE, EDITED, "paint it blue") for _ in range(4))
        )

    assert asyncio.run(inside()) == 6
    assert len(asyncio.run(many())) == 4
    assert len(server.calls) == 10


def test_no_more_calls_are_in_flight_than_allowed(server: ChatServer) -> None:
    server.delay_s = 0.05
    judge = judge_at(server, concurrency=3)

    async def many() -> None:
        await asyncio.gather(*(judge.judge_async(SOURCE, EDITED, f"paint it {k}") for k in range(6)))

    asyncio.run(many())
    assert len(server.calls) == 12
    assert server.most_in_flight == 3


@pytest.mark.parametrize("question", ["", "  \n"])
def test_an_empty_instruction_or_a_wrong_array_costs_no_call(server: ChatServer, question: str) -> None:
    assert type(failure(judge_at(server), question)) is JudgeError
    with pytest.raises(JudgeError, match="float64"):
        judge_at(server).judge(SOURCE, EDITED / 255, "paint it blue")
    assert not server.calls


def test_samples_are_averaged_with_their_variance(server: ChatServer) -> None:
    by_seed = {42: marks(8, 6), 43: marks(9, 9), 44: marks(3, 10)}
    server.choose = lambda call: by_seed[call.body["seed"]] if call.half == "sc" else marks(5, 5)
    verdict = judge_at(server, samples=3, temperature=0.7, seed=42).judge(SOURCE, EDITED, "paint it blue")
    assert (verdict.scores.semantic, verdict.scores.quality) == (6, 5)
    assert verdict.notes["variance"] == {"semantic": 9, "quality": 0}
    assert verdict.notes["semantic"]["marks"] == [[8, 6], [9, 9], [3, 10]]
    assert len(server.calls) == 6


def test_a_sample_that_fails_is_asked_again_alone_and_never_left_out(server: ChatServer) -> None:
    good, bad = marks(8, 6), Says("no idea")
    server.choose = lambda call: bad if (call.half, call.body["seed"]) == ("sc", 1) else good
    error = failure(judge_at(server, samples=3, temperature=0.7))
    assert type(error) is JudgeUnreadable
    assert len(server.calls) == 6 + 2


@pytest.mark.parametrize("output", ["json_schema", "json_object", "text"])
def test_the_server_is_held_to_the_form_it_knows(server: ChatServer, output: str) -> None:
    judge_at(server, output=output).judge(SOURCE, EDITED, "paint it blue")
    for call in server.calls:
        form = call.body.get("response_format")
        assert (form["type"] if form else "text") == output
        if output == "json_schema":
            assert form["json_schema"]["strict"] is True
            score = form["json_schema"]["schema"]["properties"]["score"]
            assert (score["minItems"], score["maxItems"]) == (2, 2)


def test_what_is_null_is_not_sent_and_extras_are(server: ChatServer) -> None:
    extra = {"max_completion_tokens": 4000, "chat_template_kwargs": {"enable_thinking": False}}
    options = dict(temperature=None, seed=None, max_tokens=None, api_key_env=None, extra_body=extra)
    judge_at(server, **options).judge(SOURCE, EDITED, "paint it blue")
    for call in server.calls:
        assert not {"temperature", "seed", "max_tokens"} & set(call.body)
        assert call.body["max_completion_tokens"] == 4000
        assert KEY not in json.dumps(dict(call.headers))


@pytest.mark.parametrize("image_format", ["png", "jpeg"])
def test_pictures_are_scaled_down_on_demand(server: ChatServer, image_format: str) -> None:
    judge_at(server, max_side=16, image_format=image_format).judge(SOURCE, EDITED, "paint it blue")
    for call in server.calls:
        assert {picture.shape for picture in pictures_of(call)} == {(12, 16, 3)}
        assert f"data:image/{image_format};" in json.dumps(call.body)


def test_the_prompt_hash_follows_what_moves_marks_and_nothing_else(server: ChatServer) -> None:
    plain = judge_at(server)
    others = [
        dict(model="another"),
        dict(temperature=0.5),
        dict(seed=1),
        dict(output="text"),
        dict(max_side=512),
        dict(image_format="jpeg"),
        dict(max_tokens=500),
        dict(extra_body={"top_p": 0.5}),
        dict(samples=2, temperature=0.7),
    ]
    hashes = {plain.settings()["prompt_hash"]}
    hashes |= {judge_at(server, **options).settings()["prompt_hash"] for options in others}
    assert len(hashes) == 1 + len(others)
    same = judge_at(server, base_url="http://elsewhere:1/v1", tries=9, concurrency=1)
    assert same.settings() == plain.settings()
    verdict = plain.judge(SOURCE, EDITED, "paint it blue")
    assert verdict.prompt_hash == plain.settings()["prompt_hash"]
    assert verdict.judge_id == "viescore@1/grader"


def test_a_changed_prompt_changes_the_hash(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    before = judge_at(server).settings()
    monkeypatch.setattr(VIEScoreJudge, "questions", replace(VIEScoreJudge.questions, quality="other words"))
    assert judge_at(server).settings()["prompt_hash"] != before["prompt_hash"]


def test_the_key_shows_nowhere(server: ChatServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    judge = judge_at(server)
    judge.judge(SOURCE, EDITED, "paint it blue")
    echo = {"error": {"message": f"key {KEY} ran out", "code": KEY}}
    server.answers["sc"] = [Fails(500, echo), Raw(json.dumps(echo).encode()), Says(None, refusal=KEY)]
    server.reset()
    error = failure(judge)
    chain: BaseException | None = error
    while chain is not None:
        assert KEY not in repr(chain)
        assert not hasattr(chain, "request")  # openai's exceptions carry the headers
        chain = chain.__cause__ or chain.__context__
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("thinkedit")]
    assert ours
    for text in (*ours, caplog.text, repr(judge), json.dumps(judge.settings()), str(vars(judge))):
        assert KEY not in text


def test_a_missing_key_is_told_at_once_by_the_name_of_its_variable(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("THINKEDIT_TEST_KEY")
    with pytest.raises(ConfigError, match="THINKEDIT_TEST_KEY is not set"):
        judge_at(server)
    monkeypatch.setenv("THINKEDIT_TEST_KEY", "two words\nand a line")
    with pytest.raises(ConfigError, match="no key") as caught:
        judge_at(server)
    assert "two words" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(output="json"), "json_object"),
        (dict(image_format="webp"), "image_format"),
        (dict(model=" "), "model"),
        (dict(base_url="localhost:8000/v1"), "base_url"),
        (dict(base_url=f"http://me:{KEY}@host/v1"), "base_url"),
        (dict(base_url=f"http://host/v1?key={KEY}"), "base_url"),
        (dict(samples=0), "samples=0"),
        (dict(samples=2), "temperature 0"),
        (dict(tries=0), "tries=0"),
        (dict(temperature=-1.0), "temperature"),
        (dict(request_timeout_s=0.0), "request_timeout_s"),
        (dict(max_side=0), "max_side"),
        (dict(extra_body={"temperature": 1.0}), "extra_body: temperature"),
    ],
)
def test_options_that_cannot_work_are_refused(
    server: ChatServer, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        judge_at(server, **options)
    assert KEY not in str(caught.value)


def test_the_config_group_builds_it_by_name(server: ChatServer) -> None:
    config = load_config(
        "demo",
        [
            "judge=viescore",
            f"judge.options.base_url={server.base_url}",
            "judge.options.api_key_env=null",
        ],
        require_plugins=False,
    )
    judge = CachedJudge(plugins.build("judges", config.judge.name, config.judge.options))
    assert judge.judge(SOURCE, EDITED, "paint it blue").scores.semantic == 6
    assert judge.judge(SOURCE, EDITED, "paint it blue").scores.quality == 7
    assert len(server.calls) == 2
    judge.close()
    with pytest.raises(UnknownName, match="'samples'"):
        plugins.build("judges", "viescore", {"sampels": 3})


def test_the_yaml_says_what_the_class_does() -> None:
    options = load_config("demo", ["judge=viescore"], require_plugins=False).judge.options
    assert options == {key: value for key, value in asdict(VIEScoreConfig()).items() if key in options}


def test_it_works_in_a_forked_child(server: ChatServer) -> None:
    judge = judge_at(server)
    judge.judge(SOURCE, EDITED, "paint it blue")
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if judge.judge(SOURCE, EDITED, "paint it blue").scores.semantic == 6 else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    judge.close()
    assert judge.judge(SOURCE, EDITED, "paint it blue").scores.semantic == 6  # opens again


def test_importing_it_does_not_import_openai() -> None:
    code = "import thinkedit.rewards.judges.viescore, sys; print(int('openai' in sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "0"
