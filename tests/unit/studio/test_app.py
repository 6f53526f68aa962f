"""The studio's interface: what it takes, what it refuses, and what a page can follow."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import plain
import pytest
from PIL import Image

from thinkedit.actors.inference import ThinkingEditor
from thinkedit.actors.inference.thinkers import PolicyThinker
from thinkedit.actors.play import Context, Reply
from thinkedit.configs.load import load_config
from thinkedit.envs.editors.base import Editor
from thinkedit.envs.protocol import Protocol
from thinkedit.envs.services import Services
from thinkedit.errors import EditorError
from thinkedit.studio.app import build_app
from thinkedit.studio.runs import Runs
from thinkedit.types import Observation

SOURCE = plain.task().source
HOST = "studio.test"


class Scripted:
    """A policy: these replies in turn; while `gate` is closed it doesn't answer."""

    def __init__(self, *replies: str) -> None:
        self._replies, self.asked = replies, 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def reply(self, observation: Observation, context: Context) -> Reply:
        self.asked += 1
        await self.gate.wait()
        return Reply(self._replies[min(observation.turn, len(self._replies) - 1)])


def png(image: Any = SOURCE, form: str = "PNG") -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, form)
    return base64.b64encode(buffer.getvalue()).decode()


class Studio:
    def __init__(self, client: httpx.AsyncClient, runs: Runs, policy: Scripted) -> None:
        self.client, self.runs, self.policy = client, runs, policy

    async def start(self, **changes: Any) -> httpx.Response:
        body = {"image": png(), "instruction": "make the left half red"} | changes
        return await self.client.post("/api/runs", json=body)

    async def follow(self, name: str, after: int = 0) -> list[dict[str, Any]]:
        answer = await self.client.get(f"/api/runs/{name}/events", params={"after": after})
        return [json.loads(line) for line in answer.text.splitlines() if line]

    async def played(self, **changes: Any) -> tuple[str, list[dict[str, Any]]]:
        answer = await self.start(**changes)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"], await self.follow(answer.json()["id"])


@asynccontextmanager
async def studio(
    root: Path,
    *replies: str,
    editor: Editor | None = None,
    token: str | None = None,
    limits: dict[str, int] | None = None,
    **runs: Any,
) -> AsyncIterator[Studio]:
    policy = Scripted(*(replies or (plain.reply("paint it red"), plain.reply("x", 9, 9))))
    config = load_config("demo")
    services = Services(editor or plain.HalfPainter(), plain.HalfJudge(), 20, 20)
    thinking = ThinkingEditor(config, services, PolicyThinker(policy, Protocol(), {"name": "scripted"}, 1))
    kept = Runs(thinking, root, **runs)
    app = build_app(thinking, kept, token=token, hosts=frozenset({HOST}), **(limits or {}))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}") as client:
        try:
            yield Studio(client, kept, policy)
        finally:
            await kept.close()


async def test_a_page_can_follow_a_run(tmp_path: Path) -> None:
    async with studio(tmp_path) as page:
        name, told = await page.played()
        kinds = [m.get("who") or m["type"] for m in told]
        turn = ["editor", "edited", "thinker", "critiqued"]
        assert kinds == ["started", *turn, *turn, "finished"]
        assert told[0]["size"] == [SOURCE.shape[1], SOURCE.shape[0]]
        assert told[-1] | {"detail": ""} == told[-1]
        assert [told[-1][key] for key in ("chosen", "stop", "failed")] == [1, "accepted", False]
        critiqued = [m["edit"]["critique"] for m in told if m["type"] == "critiqued"]
        assert [c["predicted"]["semantic"] for c in critiqued] == [3, 9]
        assert await page.follow(name, after=5) == told[5:]


async def test_pictures_are_there_when_they_are_told_of(tmp_path: Path) -> None:
    async with studio(tmp_path) as page:
        page.policy.gate.clear()
        name = (await page.start()).json()["id"]
        seen = []
        run = page.runs[name]
        async for message in run.follow(0):
            assert message is not None
            if message["type"] == "edited":
                answer = await page.client.get(f"/api/runs/{name}/files/{message['edit']['file']}")
                seen.append(np.asarray(Image.open(io.BytesIO(answer.content))))
                page.policy.gate.set()
        assert len(seen) == 2
        assert (seen[0][:, : SOURCE.shape[1] // 2] == plain.COLOURS["red"]).all()


async def test_everything_can_be_downloaded(tmp_path: Path) -> None:
    async with studio(tmp_path) as page:
        name, _ = await page.played()
        answer = await page.client.get(f"/api/runs/{name}/all.zip")
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            names = {item.split("/")[-1] for item in archive.namelist()}
            assert archive.testzip() is None
        expected = {"source.png", "edit_0.png", "edit_1.png", "result.png", "sheet.png", "edit.json"}
        assert names == expected


async def test_a_run_that_waits_can_be_stopped(tmp_path: Path) -> None:
    async with studio(tmp_path) as page:
        page.policy.gate.clear()
        first, second, third = [(await page.start()).json()["id"] for _ in range(3)]
        await page.client.post(f"/api/runs/{second}/stop")
        assert [m["type"] for m in await page.follow(second)] == ["waiting", "stopped"]
        assert not page.runs[first].over
        page.policy.gate.set()
        for name in (first, third):  # what it waited for is still to be had
            assert (await page.follow(name))[-1]["type"] == "finished"


async def test_a_thinker_that_cant_be_read_ends_in_failure(tmp_path: Path) -> None:
    async with studio(tmp_path, "well, well") as page:
        _, told = await page.played()
        assert (told[-1]["stop"], told[-1]["failed"]) == ("thinker_unreadable", True)


async def test_stopping_keeps_what_is_there(tmp_path: Path) -> None:
    async with studio(tmp_path) as page:
        page.policy.gate.clear()
        name = (await page.start()).json()["id"]
        while not page.policy.asked:
            await asyncio.sleep(0.01)
        assert (await page.client.post(f"/api/runs/{name}/stop")).status_code == 204
        told = await page.follow(name)
        assert (told[-1]["type"], told[-1]["stop"], told[-1]["chosen"]) == ("finished", "stopped", 0)


async def test_a_first_edit_that_fails_is_told(tmp_path: Path) -> None:
    editor = plain.Broken(plain.raising(EditorError("out of memory")), good=0)
    async with studio(tmp_path, editor=editor) as page:
        _, told = await page.played()
        assert told[-1] == {"type": "failed", "detail": "out of memory"}


async def test_a_bug_ends_the_run_and_is_no_secret(tmp_path: Path) -> None:
    async with studio(tmp_path) as page:
        page.policy.gate.clear()
        name = (await page.start()).json()["id"]
        run = page.runs[name]
        while not page.policy.asked:
            await asyncio.sleep(0.01)
        for path in run.folder.iterdir():
            path.unlink()
        run.folder.rmdir()  # the next picture can't be written
        page.policy.gate.set()
        told = await page.follow(name)
        assert told[-1]["type"] == "failed"


async def test_runs_wait_for_each_other_and_too_many_are_refused(tmp_path: Path) -> None:
    async with studio(tmp_path, at_once=1, waiting=1) as page:
        page.policy.gate.clear()
        first, second, third = [await page.start() for _ in range(3)]
        assert [first.status_code, second.status_code, third.status_code] == [201, 201, 503]
        assert third.headers["Retry-After"]
        await asyncio.sleep(0.1)
        assert page.policy.asked == 1
        page.policy.gate.set()
        for answer in (first, second):
            told = await page.follow(answer.json()["id"])
            assert told[-1]["type"] == "finished"
        assert told[0] == {"type": "waiting"}
        assert (await page.start()).status_code == 201


async def test_old_runs_are_forgotten_with_their_pictures(tmp_path: Path) -> None:
    async with studio(tmp_path, kept=2) as page:
        names = [(await page.played())[0] for _ in range(4)]
        assert {path.name for path in tmp_path.iterdir()} == set(names[-3:])
        assert (await page.client.get(f"/api/runs/{names[0]}/events")).status_code == 404


async def test_runs_that_are_kept_stay_on_disk(tmp_path: Path) -> None:
    async with studio(tmp_path, kept=1, forever=True) as page:
        names = [(await page.played())[0] for _ in range(3)]
        assert {path.name for path in tmp_path.iterdir()} == set(names)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": "not base64!"}, "the picture"),
        ({"image": base64.b64encode(b"GIF89a").decode()}, "no readable PNG"),
        ({"image": png(form="BMP")}, "no readable PNG"),
        ({"image": png(np.zeros((40, 60, 3), np.uint8))}, "more than 2000 pixels"),
        ({"instruction": " \n"}, "instruction is empty"),
        ({"instruction": "x" * 2001}, "instruction"),
        ({"mode": "expert"}, "mode=expert"),
        ({"mode": "befor"}, "Did you mean 'before'"),
        ({"mode": "before", "select": "best_judge"}, "one edit"),
        ({"turns": 0}, "turns"),
        ({"turns": 1000}, "turns"),
        ({"seed": -1}, "seed"),
        ({"steps": 3}, "steps"),
    ],
)
async def test_what_cannot_be_edited_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    async with studio(tmp_path, limits={"max_pixels": 2000}) as page:
        answer = await page.start(**changes)
        assert answer.status_code == 422
        assert message in answer.json()["detail"]
        assert len(answer.text) < 1000  # the picture is not sent back
        assert page.policy.asked == 0


async def test_an_upload_that_is_too_large_is_refused(tmp_path: Path) -> None:
    async with studio(tmp_path, limits={"max_body_bytes": 10_000}) as page:
        answer = await page.start(image="A" * 20_000)
        assert answer.status_code == 413


async def test_a_picture_is_turned_upright(tmp_path: Path) -> None:
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.fromarray(SOURCE).save(buffer, "JPEG", exif=exif)
    async with studio(tmp_path) as page:
        _, told = await page.played(image=base64.b64encode(buffer.getvalue()).decode())
        assert told[0]["size"] == [SOURCE.shape[0], SOURCE.shape[1]]


@pytest.mark.parametrize("path", ["setup", "runs/x/events", "runs/x/files/source.png", "runs/x/all.zip"])
async def test_without_the_token_nothing_but_the_page_is_shown(tmp_path: Path, path: str) -> None:
    token = "a token of some length"
    async with studio(tmp_path, token=token) as page:
        assert (await page.client.get(f"/api/{path}")).status_code == 401
        assert (await page.start()).status_code == 401
        right = {"Authorization": f"Bearer {token}"}
        assert (await page.client.get(f"/api/{path}", headers=right)).status_code in (200, 404)
        assert (await page.client.get("/")).status_code == 200


async def test_another_name_that_points_here_is_refused(tmp_path: Path) -> None:
    async with studio(tmp_path) as page:
        for host, status in (("evil.test", 421), ("evil.test:80", 421), ("[bad", 421), (f"{HOST}:7860", 200)):
            answer = await page.client.get("/api/setup", headers={"Host": host})
            assert answer.status_code == status, host


async def test_a_page_of_another_site_may_not_ask(tmp_path: Path) -> None:
    async with studio(tmp_path) as page:
        answer = await page.client.get("/api/setup", headers={"Sec-Fetch-Site": "cross-site"})
        assert answer.status_code == 403


@pytest.mark.parametrize("file", ["../../secret.txt", "%2e%2e%2fsecret.txt", "..%2f..%2fsecret.txt", "x.png"])
async def test_no_file_outside_a_run_can_be_had(tmp_path: Path, file: str) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    async with studio(tmp_path / "runs") as page:
        name, _ = await page.played()
        answer = await page.client.get(f"/api/runs/{name}/files/{file}")
        assert answer.status_code == 404
        assert "secret" not in answer.text


async def test_the_page_may_load_nothing_from_elsewhere(tmp_path: Path) -> None:
    async with studio(tmp_path) as page:
        for path in ("/", "/studio.js", "/studio.css", "/icon.svg"):
            answer = await page.client.get(path)
            assert answer.status_code == 200
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            assert "http" not in answer.text.replace("http://www.w3.org/2000/svg", "")
