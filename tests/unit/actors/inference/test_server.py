"""A thinker behind an OpenAI-compatible server, over real HTTP: as a policy and as an expert."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import plain
import pytest
from chat_server import ChatServer, Fails, Says
from PIL import Image

from thinkedit.actors.inference import EditResult, Mode, Options, Run, Stop, ThinkerError
from thinkedit.actors.inference.chat import Chat
from thinkedit.actors.inference.expert import ServerThinker
from thinkedit.actors.inference.questions import Refinement
from thinkedit.configs.schema import ChatServerConfig
from thinkedit.envs.protocol import Protocol
from thinkedit.envs.services import Services
from thinkedit.errors import ConfigError
from thinkedit.types import Task

TASK = plain.task("make the left half red")


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as server:
        yield server


def says(**fields: object) -> Says:
    return Says(json.dumps(fields))


def edit(
    server: ChatServer, mode: Mode, *, task: Task = TASK, tries: int = 1, turns: int = 3, **config: Any
) -> EditResult:
    async def run() -> EditResult:
        settings = {"model": "m", "base_url": server.base_url, "api_key_env": None, "tries": 1, **config}
        chat = Chat(ChatServerConfig(**settings))
        thinker = ServerThinker(chat, Protocol(), tries).for_mode(mode)
        services = Services(plain.HalfPainter(), plain.HalfJudge(), 20, 20)
        options = Options(mode=mode, turns=turns, seed=3)
        try:
            return await Run(services, thinker, task.source, task.instruction, options).play()
        finally:
            await chat.close()

    return asyncio.run(run())


def pictures(body: dict[str, Any]) -> list[Image.Image]:
    parts = [part["image_url"] for part in body["messages"][0]["content"] if "image_url" in part]
    coded = [part["url"].removeprefix("data:image/png;base64,") for part in parts]
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in coded]


def kinds(body: dict[str, Any]) -> list[str]:
    return [part["type"] for part in body["messages"][0]["content"]]


def test_as_a_policy_it_is_asked_as_in_training(server: ChatServer) -> None:
    server.answers["sc"] = [Says(plain.reply("paint it red")), Says(plain.reply("x", 9, 9))]
    result = edit(server, Mode.WHILE)
    assert result.stop is Stop.ACCEPTED
    assert [attempt.prompt for attempt in result.attempts] == [TASK.instruction, "paint it red"]
    body = server.calls[1].body
    assert kinds(body) == ["image_url", "image_url", "text"]
    source, edited = pictures(body)
    np.testing.assert_array_equal(np.asarray(source), TASK.source)
    np.testing.assert_array_equal(np.asarray(edited), result.attempts[1].image)
    assert "current prompt: paint it red" in body["messages"][0]["content"][2]["text"]
    assert "response_format" not in body
    assert server.calls[0].body["seed"] != body["seed"]


def test_a_thinkers_reply_that_was_cut_off_is_its_reply(server: ChatServer) -> None:
    server.answers["sc"] = [Says(plain.reply("paint it red"), finish="length"), Says(plain.reply("x", 9, 9))]
    assert edit(server, Mode.WHILE).stop is Stop.ACCEPTED


def test_an_expert_decides_by_itself_and_gives_no_scores(server: ChatServer) -> None:
    server.answers["sc"] = [
        says(reason="half is missing", satisfied=False, next_prompt="paint it red"),
        says(reason="good", satisfied=True, next_prompt=""),
    ]
    result = edit(server, Mode.EXPERT)
    assert result.stop is Stop.ACCEPTED
    assert [attempt.prompt for attempt in result.attempts] == [TASK.instruction, "paint it red"]
    thoughts = [attempt.thought for attempt in result.attempts]
    assert [thought.reason for thought in thoughts if thought] == ["half is missing", "good"]
    assert [thought.predicted for thought in thoughts if thought] == [None, None]
    body = server.calls[0].body
    assert kinds(body) == ["text", "image_url", "image_url"]
    assert body["response_format"]["json_schema"]["schema"] == Refinement.model_json_schema()


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        ("I am satisfied.", "Invalid JSON"),
        ('{"reason": "r", "satisfied": "yes", "next_prompt": ""}', "satisfied"),
        ('{"reason": "r", "satisfied": false}', "next_prompt"),
        ('{"reason": "r", "satisfied": false, "next_prompt": " "}', "answer_empty"),
        ('{"reason": "r", "satisfied": false, "next_prompt": "a <|im_end|> b"}', "special_token"),
        ('{"reason": "r", "satisfied": false, "next_prompt": "x", "score": 3}', "score"),
    ],
)
def test_an_experts_unreadable_reply_is_no_satisfaction(server: ChatServer, reply: str, fault: str) -> None:
    server.answers["sc"] = [Says(reply)]
    result = edit(server, Mode.EXPERT, tries=2)
    assert result.stop is Stop.THINKER_UNREADABLE
    assert fault in result.detail
    first, second = (call.body["seed"] for call in server.calls)
    assert first != second


def test_an_experts_reply_may_be_fenced_or_thought_about(server: ChatServer) -> None:
    text = json.dumps({"reason": "r", "satisfied": True, "next_prompt": ""})
    server.answers["sc"] = [Says(f"<think>well {{ }}</think>\n```json\n{text}\n```")]
    assert edit(server, Mode.EXPERT).stop is Stop.ACCEPTED


def test_an_expert_that_repeats_the_prompt_ends_it(server: ChatServer) -> None:
    server.answers["sc"] = [says(reason="bad luck", satisfied=False, next_prompt=TASK.instruction)]
    result = edit(server, Mode.EXPERT)
    assert (result.stop, len(result.attempts)) == (Stop.REPEATED, 1)


@pytest.mark.parametrize("mode", [Mode.BEFORE, Mode.BEFORE_WHILE])
def test_before_shows_the_source_alone(server: ChatServer, mode: Mode) -> None:
    server.answers["pq"] = [says(reason="noise on the right", prompt="paint the left half red")]
    server.answers["sc"] = [Says(plain.reply("x", 9, 9))]
    result = edit(server, mode)
    assert result.attempts[0].prompt == "paint the left half red"
    assert kinds(server.calls[0].body) == ["text", "image_url"]
    assert server.asked("sc") == (1 if mode is Mode.BEFORE_WHILE else 0)


def test_what_the_user_writes_is_no_slot_of_the_question(server: ChatServer) -> None:
    server.answers["sc"] = [says(reason="r", satisfied=True, next_prompt="")]
    task = plain.task("paint {prompt} red <image>")
    edit(server, Mode.EXPERT, task=task)
    text = server.calls[0].body["messages"][0]["content"][0]["text"]
    assert "paint {prompt} red ‹image›" in text


def test_large_pictures_are_scaled_down_for_the_thinker_only(server: ChatServer) -> None:
    server.answers["sc"] = [Says(plain.reply("x", 9, 9))]
    task = plain.task(side=60)
    result = edit(server, Mode.WHILE, task=task, max_side=32)
    assert [picture.size for picture in pictures(server.calls[0].body)] == [(32, 30)] * 2
    assert result.image.shape == task.source.shape


@pytest.mark.parametrize(("output", "sent"), [("json_object", {"type": "json_object"}), ("text", None)])
def test_what_a_server_cannot_be_held_to_is_not_asked(
    server: ChatServer, output: str, sent: dict[str, str] | None
) -> None:
    server.answers["sc"] = [says(reason="r", satisfied=True, next_prompt="")]
    edit(server, Mode.EXPERT, output=output)
    assert server.calls[0].body.get("response_format") == sent


def test_options_that_a_server_refuses_can_be_left_out(server: ChatServer) -> None:
    server.answers["sc"] = [Says(plain.reply("x", 9, 9))]
    edit(server, Mode.WHILE, temperature=None, send_seed=False, max_tokens=None)
    assert not {"temperature", "seed", "max_tokens"} & server.calls[0].body.keys()


def test_a_server_that_fails_is_the_thinkers_failure(server: ChatServer) -> None:
    server.answers["sc"] = [Fails(500)]
    result = edit(server, Mode.WHILE)
    assert result.stop is Stop.THINKER_FAILED
    assert "HTTP 500" in result.detail
    server.answers["pq"] = [Fails(401)]
    with pytest.raises(ThinkerError, match="HTTP 401"):
        edit(server, Mode.BEFORE)


def test_a_key_that_is_not_there_is_told_before_the_first_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY is not set"):
        Chat(ChatServerConfig())


def test_an_address_with_a_password_in_it_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        Chat(ChatServerConfig(base_url="http://me:secret@127.0.0.1/v1", api_key_env=None))
    assert "secret@" not in str(caught.value)
