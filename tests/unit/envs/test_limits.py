"""Limits with real servers: every try is charged, and a spent budget is an outcome."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import ChatServer, Fails, Hangs, Raw, Says, marks
from edit_server import Edits, EditServer
from edit_server import Fails as EditFails
from edit_server import Raw as EditRaw
from plain import Insists

from thinkedit.actors.play import play, play_many
from thinkedit.configs.load import load_config
from thinkedit.envs.build import Parts
from thinkedit.envs.edit_env import ThinkEditEnv
from thinkedit.envs.editors.http import HTTPConfig, HTTPEditor
from thinkedit.errors import BudgetExceeded, EditorError, JudgeError, ServiceTimeout
from thinkedit.rewards.limits.ledger import LEDGER, read_ledger
from thinkedit.types import End, Episode, Outcome, Verdict

SOURCE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
EDITED = 255 - SOURCE
USED = 50, 10  # tokens of a call, as the chat server tells


@pytest.fixture(scope="module")
def _chat() -> Iterator[ChatServer]:
    with ChatServer() as server:
        yield server


@pytest.fixture
def chat(_chat: ChatServer) -> ChatServer:
    _chat.reset()
    _chat.answers = {"sc": [marks(8, 6)], "pq": [marks(8, 6)]}
    return _chat


@pytest.fixture
def edits() -> Iterator[EditServer]:
    with EditServer() as server:
        yield server


def with_judge(run: Path, chat: ChatServer, *overrides: str) -> Parts:
    quick = dict(base_url=chat.base_url, api_key_env="null", backoff_s=0.01, max_wait_s=2)
    options = [f"judge.options.{name}={value}" for name, value in quick.items()]
    return Parts.from_config(load_config("demo", ["judge=viescore", f"run_dir={run}", *options, *overrides]))


def with_editor(run: Path, edits: EditServer, *overrides: str) -> Parts:
    options = ["editor=http", f"editor.options.urls=[{edits.url}]", "editor.options.backoff_s=0.01"]
    return Parts.from_config(load_config("demo", [f"run_dir={run}", *options, *overrides]))


def verdict(parts: Parts) -> Verdict:
    return parts.judge.judge(SOURCE, EDITED, "paint it blue")


def total(run: Path) -> dict[str, Any]:
    ledger = read_ledger(run / LEDGER)
    assert ledger is not None
    fields: dict[str, Any] = ledger["total"]
    return fields


def test_every_try_of_a_verdict_is_charged_and_a_cached_one_is_not(tmp_path: Path, chat: ChatServer) -> None:
    chat.answers["pq"] = [Fails(429), Says("I'd rather not say"), marks(9, 7)]
    prices = ["limits.judge.per_million_input=1e6", "limits.judge.per_image=0.25"]
    with closing(with_judge(tmp_path, chat, *prices)) as parts:
        verdict(parts)
        verdict(parts)
    assert (chat.asked("sc"), chat.asked("pq")) == (1, 3)
    answered = 3  # all but the 429, which no server charges for
    assert total(tmp_path) == {
        "calls": 4,
        "failed": 1,
        "refused": 0,
        "prompt_tokens": answered * USED[0],
        "completion_tokens": answered * USED[1],
        "images": 2 + 1 + 1,
        "spend": answered * USED[0] + 4 * 0.25,
        "waited_s": 0.0,
    }


def test_a_call_that_nobody_answered_is_charged_as_guessed(tmp_path: Path, chat: ChatServer) -> None:
    chat.answers["sc"] = [Hangs()]
    quick = ["judge.options.tries=1", "judge.options.request_timeout_s=3"]
    parts = with_judge(tmp_path, chat, "limits.judge.per_million_output=1e6", *quick)
    with closing(parts), pytest.raises(ServiceTimeout):
        verdict(parts)
    assert (total(tmp_path)["calls"], total(tmp_path)["failed"]) == (2, 1)
    assert total(tmp_path)["spend"] == 1000 + USED[1]  # max_tokens of the one, the bill of the other


def test_an_answer_that_tells_no_usage_is_charged_as_guessed(tmp_path: Path, chat: ChatServer) -> None:
    chat.answers["sc"] = [Raw(b'{"error": {"message": "upstream is gone"}}')]
    prices = ["limits.judge.per_image=1", "judge.options.tries=1"]
    with closing(with_judge(tmp_path, chat, *prices)) as parts, pytest.raises(JudgeError):
        verdict(parts)
    assert total(tmp_path)["spend"] == 3


def test_what_was_put_by_and_not_used_is_free_again(tmp_path: Path, chat: ChatServer) -> None:
    """A verdict may cost 2000 here, and does cost 20."""
    limits = ["limits.judge.per_million_output=1e6", "limits.budget=2030"]
    with closing(with_judge(tmp_path, chat, *limits)) as parts:
        for value in range(2):
            parts.judge.judge(SOURCE, EDITED - np.uint8(value), "paint it blue")
        with pytest.raises(BudgetExceeded):
            parts.judge.judge(SOURCE, EDITED - np.uint8(2), "paint it blue")
    assert total(tmp_path)["spend"] == 5 * USED[1]  # one question of the third went through


def one_episode(parts: Parts, index: int) -> Episode:
    task = parts.tasks.task("train", index)
    return asyncio.run(play(parts.session(), task, index, Insists(), group=task.uid))


def test_a_spent_budget_ends_episodes_typed_without_a_reward_or_a_call(
    tmp_path: Path, chat: ChatServer
) -> None:
    limits = ["limits.judge.per_request=1", "limits.budget=9"]
    with closing(with_judge(tmp_path, chat, *limits)) as parts:
        episodes = [one_episode(parts, index) for index in range(4)]
    # An episode is an edit and two turns: three verdicts, six calls.
    assert [episode.outcome for episode in episodes] == [Outcome.OK, *[Outcome.BUDGET] * 3]
    stopped = episodes[1].turns[-1]
    assert (stopped.outcome, stopped.reward, stopped.end) == (Outcome.BUDGET, None, End.FAILED)
    assert "limits.budget=9" in stopped.detail
    assert [len(episode.turns) for episode in episodes[2:]] == [0, 0]
    assert len(chat.calls) == 9
    assert (total(tmp_path)["calls"], total(tmp_path)["spend"]) == (9, 9)
    assert total(tmp_path)["refused"] == 1 + 2 + 2


def test_a_resumed_run_goes_on_with_the_same_ledger_and_a_raised_budget(
    tmp_path: Path, chat: ChatServer
) -> None:
    limits = ["limits.judge.per_request=1", "limits.budget=2"]
    for budget, outcome in (("2", Outcome.BUDGET), ("2", Outcome.BUDGET), ("8", Outcome.OK)):
        with closing(with_judge(tmp_path, chat, limits[0], f"limits.budget={budget}")) as parts:
            assert one_episode(parts, 0).outcome is outcome
    assert total(tmp_path)["spend"] == len(chat.calls) == 8


def test_the_members_of_an_ensemble_share_limits_and_budget(tmp_path: Path, chat: ChatServer) -> None:
    options = f"base_url: '{chat.base_url}', api_key_env: null, backoff_s: 0.01"
    members = ", ".join(f"{{name: viescore, options: {{model: {name}, {options}}}}}" for name in "ab")
    limits = ["limits.models={a: {per_request: 2}, b: {per_request: 1}}", "limits.budget=10"]
    config = load_config(
        "demo", ["judge=ensemble", f"run_dir={tmp_path}", f"judge.options.judges=[{members}]", *limits]
    )
    with closing(Parts.from_config(config)) as parts:
        verdict(parts)
        with pytest.raises(BudgetExceeded):
            parts.judge.judge(EDITED, SOURCE, "paint it blue")
    ledger = read_ledger(tmp_path / LEDGER)
    assert ledger is not None
    spent = {row["model"]: row["spend"] for row in ledger["by_model"]}
    assert spent["a"] >= 4
    assert spent["b"] >= 2
    assert 8 < ledger["total"]["spend"] <= 10


def test_every_try_of_an_edit_is_charged(tmp_path: Path, edits: EditServer) -> None:
    edits.answers = [EditFails(500), EditRaw(b"<html>"), Edits()]
    with closing(with_editor(tmp_path, edits, "limits.editor.per_image=0.04")) as parts:
        parts.editor.edit(SOURCE, "paint it blue", seed=0)
    found = total(tmp_path)
    assert len(edits.calls) == found["calls"] == 3
    assert (found["failed"], found["images"], found["spend"]) == (1, 2, 0.08)


def test_an_edit_beyond_the_budget_is_not_asked_for(tmp_path: Path, edits: EditServer) -> None:
    limits = ["limits.editor.per_image=0.04", "limits.budget=0.1"]
    with closing(with_editor(tmp_path, edits, *limits)) as parts:
        for seed in range(2):
            parts.editor.edit(SOURCE, "paint it blue", seed=seed)
        with pytest.raises(BudgetExceeded):
            parts.editor.edit(SOURCE, "paint it blue", seed=2)
    assert len(edits.calls) == 2


def test_an_unreachable_editor_costs_nothing(tmp_path: Path, edits: EditServer) -> None:
    edits.kill()
    parts = with_editor(tmp_path, edits, "limits.editor.per_image=1", "editor.options.tries=2")
    with closing(parts), pytest.raises(EditorError):
        parts.editor.edit(SOURCE, "paint it blue", seed=0)
    assert (total(tmp_path)["calls"], total(tmp_path)["failed"], total(tmp_path)["spend"]) == (2, 2, 0)


def test_openais_images_are_charged_by_the_tokens_it_tells(
    tmp_path: Path, edits: EditServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    usage = {"usage": {"input_tokens": 300, "output_tokens": 4000, "total_tokens": 4300}}
    edits.answers = [Edits(fields=usage), Edits()]
    options = [f"editor.options.base_url={edits.url}/v1", "editor.options.sizes=[]"]
    limits = ["limits.editor.per_million_output=1e6"]
    config = load_config("demo", ["editor=openai", f"run_dir={tmp_path}", *options, *limits])
    with closing(Parts.from_config(config)) as parts:
        parts.editor.edit(SOURCE, "paint it blue", seed=0)
        parts.gate.flush()  # type: ignore[union-attr]
        assert total(tmp_path)["spend"] == 4000
        parts.editor.edit(SOURCE, "paint it blue", seed=1)  # tells nothing: the guess
    assert total(tmp_path)["spend"] == 4000 + 6300


def test_an_editor_that_is_handed_in_is_limited_too(tmp_path: Path, edits: EditServer) -> None:
    overrides = ["editor=http", f"editor.options.urls=[{edits.url}]", "limits.editor.per_image=1"]
    config = load_config("demo", [f"run_dir={tmp_path}", *overrides])
    with closing(HTTPEditor(HTTPConfig(urls=[edits.url]))) as editor:
        env = ThinkEditEnv(config, editor=editor)
        env.reset(seed=0)
        env.close()
    assert total(tmp_path)["images"] == len(edits.calls) == 1


def test_without_limits_there_is_no_ledger(tmp_path: Path, chat: ChatServer) -> None:
    with closing(with_judge(tmp_path, chat)) as parts:
        verdict(parts)
    assert list(tmp_path.iterdir()) == []


def test_no_more_episodes_are_played_once_one_could_not_be_paid_for(tmp_path: Path, chat: ChatServer) -> None:
    """Or demonstrations would be played for ever, and an evaluation be stored with holes."""

    async def finished(parts: Parts) -> list[Episode]:
        starts = ((parts.tasks.task("train", index), index) for index in range(50))
        return [one async for one in play_many(parts.session, starts, Insists(), concurrency=2)]

    limits = ["limits.judge.per_request=1", "limits.budget=20"]
    with (
        closing(with_judge(tmp_path, chat, *limits)) as parts,
        pytest.raises(BudgetExceeded, match="raise it"),
    ):
        asyncio.run(finished(parts))
    assert total(tmp_path)["refused"] < 20
