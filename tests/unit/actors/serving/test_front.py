"""The front of a served editor over real HTTP: its routes, what it refuses, what it joins and drops."""

import base64
import hashlib
import json
import logging
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from front_server import FrontServer, LocalCalls, shifted
from patience import eventually

from thinkedit.actors.serving.front import Sources
from thinkedit.actors.serving.work import EditorBroke, EditorBusy, ReplicasLost
from thinkedit.envs.editors import wire
from thinkedit.envs.editors.http import HTTPConfig, HTTPEditor
from thinkedit.envs.editors.pictures import MAX_PIXELS, decode, encode_png
from thinkedit.errors import ConfigError, EditorError, ServiceTimeout

SOURCE = np.arange(48 * 64 * 3, dtype=np.uint32).reshape(48, 64, 3).astype(np.uint8)
PNG = encode_png(SOURCE)
DIGEST = hashlib.sha256(PNG).hexdigest()
CLIENT = httpx.Client(trust_env=False, timeout=20)  # one, for making one takes longer than an answer
TOKEN = "a-token-of-more-than-16-characters"


def body(**fields: Any) -> dict[str, Any]:
    return {"image": base64.b64encode(PNG).decode(), "prompt": "make it blue", "seed": 7, **fields}


def post(server: FrontServer, fields: dict[str, Any], **headers: str) -> httpx.Response:
    return CLIENT.post(f"{server.url}/edit", json=fields, headers=headers, timeout=20)


def pixels(data: bytes) -> Any:
    return decode(data, MAX_PIXELS)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, data: bytes) -> bytes:
    """A PNG that claims a size, of one bit per pixel."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(data))
        + chunk(b"IEND", b"")
    )


def resident_bytes(field: str = "VmRSS") -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


@pytest.fixture(scope="module")
def server() -> Iterator[FrontServer]:
    with FrontServer() as running:
        yield running


@pytest.fixture
def slow() -> Iterator[FrontServer]:
    with FrontServer(LocalCalls(delay_s=0.8), timeout_s=10.0) as running:
        yield running


class TestEdit:
    def test_an_edit_has_every_field_of_the_protocol(self, server: FrontServer) -> None:
        answer = post(server, body())
        assert answer.status_code == 200
        record = answer.json()
        np.testing.assert_array_equal(
            pixels(base64.b64decode(record.pop("edited_image"))), shifted(SOURCE, "make it blue", 7)
        )
        assert len(record.pop("task_id")) == 32
        assert record.pop("processing_time") >= 0
        assert record == {
            "success": True,
            "original_image": body()["image"],
            "seed": 7,
            "original_prompt": "make it blue",
            "enhanced_prompt": None,
            "gpu_id": None,
            "error": None,
            "ignored": [],
        }

    def test_what_the_reference_client_sends_is_taken_and_what_has_no_effect_is_named(
        self, server: FrontServer
    ) -> None:
        fields = body(
            enhance_prompt=False, width=1024, height=1024, num_inference_step=28, guidance_scale=2.5
        )
        record = post(server, fields).json()
        assert record["success"] is True
        assert record["ignored"] == ["guidance_scale", "height", "num_inference_step", "width"]

    def test_without_a_seed_it_draws_one_and_tells_it(self, server: FrontServer) -> None:
        seeds = {post(server, body(seed=None)).json()["seed"] for _ in range(3)}
        assert len(seeds) == 3

    @pytest.mark.parametrize(
        ("fields", "status", "says"),
        [
            ({"image": None}, 400, "there is none"),
            ({"image": ""}, 400, "there is none"),
            ({"image": "data:image/png;base64,AAAA"}, 400, "no base64"),
            ({"image": base64.b64encode(b"GIF89a" + bytes(50)).decode()}, 400, "no readable PNG, JPEG, WEBP"),
            ({"image": base64.b64encode(PNG[: len(PNG) // 2]).decode()}, 400, "readable"),
            ({"image": "http://127.0.0.1/picture.png"}, 400, "no base64"),
            ({"prompt": None}, 422, "prompt"),
            ({"prompt": "x" * 20_001}, 422, "prompt"),
            ({"seed": -1}, 422, "seed"),
            ({"seed": 2**63}, 422, "seed"),
            ({"seed": "seven"}, 422, "seed"),
            ({"enhance_prompt": True}, 422, "enhance_prompt"),
        ],
    )
    def test_what_can_not_be_edited_is_refused(
        self, server: FrontServer, fields: dict[str, Any], status: int, says: str
    ) -> None:
        answer = post(server, body(**fields))
        assert answer.status_code == status
        assert says in answer.text
        assert body()["image"] not in answer.text

    def test_it_takes_a_form_with_a_file_too(self, server: FrontServer) -> None:
        fields = {"prompt": "make it blue", "seed": "7", "guidance_scale": "2.5"}
        answer = CLIENT.post(f"{server.url}/edit-upload", data=fields, files={"image_file": PNG}, timeout=20)
        assert answer.status_code == 200
        record = answer.json()
        assert record["edited_image"] == post(server, body()).json()["edited_image"]
        assert record["ignored"] == ["guidance_scale"]

    @pytest.mark.parametrize("missing", ["image_file", "prompt"])
    def test_a_form_that_lacks_something_is_refused(self, server: FrontServer, missing: str) -> None:
        files = {"image_file": (None if missing == "image_file" else "a.png", PNG)}
        fields = {} if missing == "prompt" else {"prompt": "make it blue"}
        answer = CLIENT.post(f"{server.url}/edit-upload", data=fields, files=files, timeout=20)
        assert answer.status_code == 422
        assert missing in answer.text

    def test_a_web_page_of_another_site_may_not_ask(self, server: FrontServer) -> None:
        answer = CLIENT.post(
            f"{server.url}/edit-upload",
            data={"prompt": "make it blue"},
            files={"image_file": PNG},
            headers={"Sec-Fetch-Site": "cross-site"},
        )
        assert answer.status_code == 403

    def test_a_form_is_no_json(self, server: FrontServer) -> None:
        answer = CLIENT.post(f"{server.url}/edit", content=json.dumps(body()))
        assert answer.status_code == 422

    @pytest.mark.parametrize(
        ("error", "outcome", "status"),
        [
            (EditorError, "failed", 422),
            (EditorBroke, "broken", 500),
            (ReplicasLost, "lost", 500),
            (ServiceTimeout, "timeout", 504),
            (EditorBusy, "busy", 503),
        ],
    )
    def test_a_failed_edit_is_an_error_and_never_a_picture(
        self, error: type[Exception], outcome: str, status: int
    ) -> None:
        calls = LocalCalls()
        calls.fails = error("the lamp is out")
        with FrontServer(calls) as server:
            answer = post(server, body())
            assert answer.status_code == status
            assert answer.json() == {"detail": "the lamp is out"}
            assert ("Retry-After" in answer.headers) == (error is EditorBusy)
            assert f'edits_total{{outcome="{outcome}"}} 1.0' in CLIENT.get(f"{server.url}/metrics").text


class TestBinary:
    def ask(self, server: FrontServer, **fields: Any) -> httpx.Response:
        asked = {"source": DIGEST, "prompt": "make it blue", "seed": 7, **fields}
        return CLIENT.post(f"{server.url}/edit-binary", json=asked, timeout=20)

    def test_a_source_is_sent_once(self) -> None:
        with FrontServer() as server:
            assert self.ask(server).status_code == wire.UNKNOWN_IMAGE
            assert CLIENT.put(f"{server.url}/images/{DIGEST}", content=PNG).status_code == 200
            for seed in (7, 8):
                answer = self.ask(server, seed=seed)
                assert answer.status_code == 200
                assert answer.headers["Content-Type"] == "image/png"
                np.testing.assert_array_equal(pixels(answer.content), shifted(SOURCE, "make it blue", seed))

    def test_our_client_sends_each_source_once(self) -> None:
        with FrontServer() as server:
            editor = HTTPEditor(HTTPConfig(urls=[server.url], binary=True))
            for source in (SOURCE, SOURCE[::-1]):
                for seed in (7, 8):
                    np.testing.assert_array_equal(
                        editor.edit(source, "make it blue", seed=seed), shifted(source, "make it blue", seed)
                    )
            editor.close()
            assert len(server.calls.asked) == 4

    def test_our_client_asks_both_routes_alike(self, server: FrontServer) -> None:
        edits = []
        for binary in (False, True):
            editor = HTTPEditor(HTTPConfig(urls=[server.url], binary=binary))
            assert editor.check(SOURCE) == {server.url: ""}
            edits.append(editor.edit(SOURCE, "make it blue", seed=7))
            editor.close()
        np.testing.assert_array_equal(*edits)

    @pytest.mark.parametrize("more", [{"model": "longcat"}, {"steps": 5}, {"fields": {"guidance": 1}}])
    def test_our_client_asks_for_nothing_that_would_be_left_out(self, more: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match="binary"):
            HTTPEditor(HTTPConfig(urls=["http://127.0.0.1:1"], binary=True, **more))

    def test_without_room_the_source_used_least_lately_goes(self) -> None:
        held = Sources(room=3 * SOURCE.nbytes)
        for name in "abc":
            held.put(name, SOURCE)
        held.get("a")
        held.put("d", SOURCE)
        assert [name for name in "abcd" if held.get(name) is not None] == ["a", "c", "d"]
        held.put("huge", np.zeros((4 * len(SOURCE), *SOURCE.shape[1:]), np.uint8))
        assert held.get("huge") is not None

    @pytest.mark.parametrize(
        ("digest", "content", "status"),
        [
            ("0" * 64, PNG, 422),
            (hashlib.sha256(b"GIF89a").hexdigest(), b"GIF89a", 400),
            ("../../etc/passwd", PNG, 404),
            ("A" * 64, PNG, 422),
        ],
    )
    def test_only_pictures_go_under_their_own_hash(
        self, server: FrontServer, digest: str, content: bytes, status: int
    ) -> None:
        assert CLIENT.put(f"{server.url}/images/{digest}", content=content).status_code == status

    def test_a_field_without_effect_is_refused(self, server: FrontServer) -> None:
        assert self.ask(server, num_inference_steps=5).status_code == 422


class TestStatus:
    def test_status_has_every_field_of_the_protocol(self, server: FrontServer) -> None:
        assert CLIENT.get(f"{server.url}/status").json() == {
            "active_workers": 1,
            "task_queue_size": 0,
            "result_queue_size": 0,
            "pending_tasks": 0,
            "total_gpus": 0,
            "system_ready": True,
        }

    def test_it_tells_running_from_waiting(self, slow: FrontServer) -> None:
        with ThreadPoolExecutor(3) as threads:
            edits = [threads.submit(post, slow, body(seed=seed)) for seed in range(3)]
            eventually(lambda: CLIENT.get(f"{slow.url}/status").json()["pending_tasks"] == 3)
            status = CLIENT.get(f"{slow.url}/status").json()
            figures = CLIENT.get(f"{slow.url}/metrics").text
            assert [edit.result().status_code for edit in edits] == [200] * 3
        assert (status["pending_tasks"], status["task_queue_size"]) == (3, 2)
        assert "thinkedit_edits_waiting 2.0" in figures
        assert "thinkedit_utilisation 1.0" in figures
        after = CLIENT.get(f"{slow.url}/metrics").text
        assert 'thinkedit_edits_total{outcome="ok"} 3.0' in after
        assert "thinkedit_edit_seconds_count 3.0" in after
        assert "thinkedit_utilisation 0.0" in after

    def test_without_a_replica_it_is_not_ready(self) -> None:
        calls = LocalCalls()
        calls.running = 0
        with FrontServer(calls) as server:
            assert CLIENT.get(f"{server.url}/status").status_code == 503
            health = CLIENT.get(f"{server.url}/health")
            assert health.status_code == 503
            assert health.json()["gpu_manager_ready"] is False
            assert calls.probes == 0

    def test_health_makes_a_real_edit_once_in_a_while(self) -> None:
        with FrontServer() as server:
            for _ in range(3):
                health = CLIENT.get(f"{server.url}/health")
                assert health.status_code == 200
                assert health.json()["status"] == "healthy"
                assert health.json()["gpu_manager_ready"] is True
                assert health.json()["timestamp"] == pytest.approx(time.time(), abs=60)
            assert server.calls.probes == 1

    def test_an_edit_that_was_asked_for_proves_health_too(self) -> None:
        with FrontServer() as server:
            post(server, body())
            assert CLIENT.get(f"{server.url}/health").status_code == 200
            assert server.calls.probes == 0

    def test_an_editor_that_fails_is_not_healthy(self) -> None:
        calls = LocalCalls()
        calls.fails = EditorBroke("the lamp is out")
        with FrontServer(calls) as server:
            answer = CLIENT.get(f"{server.url}/health")
            assert answer.status_code == 503
            assert "the lamp is out" in answer.json()["detail"]


class TestToken:
    @pytest.fixture(scope="class")
    def guarded(self) -> Iterator[FrontServer]:
        with FrontServer(token=TOKEN) as running:
            yield running

    @pytest.mark.parametrize(
        "given", ["", TOKEN, "Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer ü"]
    )
    def test_nothing_is_to_be_had_without_it(self, guarded: FrontServer, given: str) -> None:
        with httpx.Client(headers={b"Authorization": given.encode()}) as client:
            for route in ("/", "/edit", "/status", "/health", "/metrics", "/docs", "/openapi.json"):
                answer = client.get(f"{guarded.url}{route}")
                assert answer.status_code == 401
                assert answer.headers["WWW-Authenticate"] == "Bearer"
                assert TOKEN not in answer.text

    def test_a_body_that_was_sent_in_vain_does_not_hide_the_answer(self, guarded: FrontServer) -> None:
        for _ in range(20):
            assert CLIENT.post(f"{guarded.url}/edit", content=bytes(2**20)).status_code == 401

    def test_with_it_all_is(self, guarded: FrontServer) -> None:
        assert post(guarded, body(), Authorization=f"Bearer {TOKEN}").status_code == 200

    def test_without_it_no_body_is_read(self, guarded: FrontServer) -> None:
        with socket.create_connection(("127.0.0.1", guarded.port), timeout=10) as connection:
            connection.sendall(b"POST /edit HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
            assert b" 401 " in connection.recv(4096)


class TestLimits:
    def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(self, server: FrontServer) -> None:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(
                b"POST /edit HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: 2147483648\r\n\r\n"
            )
            assert b" 413 " in connection.recv(4096)

    @pytest.mark.parametrize("route", ["POST /edit", f"PUT /images/{DIGEST}"])
    def test_a_body_without_a_length_is_cut_off_at_the_limit(self, route: str) -> None:
        before = resident_bytes()
        sent = 0
        with FrontServer(max_body_bytes=2**20) as server:
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
                connection.sendall(
                    f"{route} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                    "Transfer-Encoding: chunked\r\n\r\n".encode()
                )
                block = b"10000\r\n" + bytes(2**16) + b"\r\n"
                try:
                    while sent < 2**31:
                        connection.sendall(block)
                        sent += 2**16
                except OSError:
                    pass  # hung up on us
                else:
                    pytest.fail("2 GiB were taken")
                assert b" 413 " in connection.recv(4096)
            assert post(server, body()).status_code == 200  # and it goes on
        assert sent < 2**26
        assert resident_bytes() - before < 2**26

    @pytest.mark.parametrize(
        "picture",
        [
            pytest.param(png_of(60_000, 60_000, b""), id="header"),
            pytest.param(png_of(50_000, 50_000, bytes(50_000 // 8 * 2_000)), id="bomb"),
            pytest.param(png_of(20_000, 10, bytes(25_010)), id="ribbon"),
        ],
    )
    def test_a_picture_that_would_be_huge_is_refused_by_its_header(
        self, server: FrontServer, picture: bytes
    ) -> None:
        before, started = resident_bytes("VmHWM"), time.monotonic()
        answer = post(server, body(image=base64.b64encode(picture).decode()))
        digest = hashlib.sha256(picture).hexdigest()
        held = CLIENT.put(f"{server.url}/images/{digest}", content=picture)
        assert (answer.status_code, held.status_code) == (400, 400)
        assert time.monotonic() - started < 5
        assert resident_bytes("VmHWM") - before < 2**26

    def test_the_deadline_ends_the_request_and_the_edit(self, slow: FrontServer) -> None:
        answer = post(slow, body(), **{wire.DEADLINE_HEADER: "0.1"})
        assert answer.status_code == 504
        eventually(lambda: slow.calls.cancelled == 1)
        assert 'edits_total{outcome="cancelled"} 1.0' in CLIENT.get(f"{slow.url}/metrics").text

    def test_what_expires_in_the_queue_is_never_begun(self, slow: FrontServer) -> None:
        with ThreadPoolExecutor(4) as threads:
            first = threads.submit(post, slow, body(seed=0))
            time.sleep(0.2)
            late = [
                threads.submit(post, slow, body(seed=seed), **{wire.DEADLINE_HEADER: "0.1"})
                for seed in (1, 2, 3)
            ]
            assert [edit.result().status_code for edit in late] == [504] * 3
            assert first.result().status_code == 200
        assert [seed for _, seed in slow.calls.asked] == [0]

    @pytest.mark.parametrize(("given", "status"), [("0", 504), ("-1", 504), ("nan", 400), ("soon", 400)])
    def test_a_deadline_that_is_none_is_refused(self, server: FrontServer, given: str, status: int) -> None:
        assert post(server, body(), **{wire.DEADLINE_HEADER: given}).status_code == status

    def test_a_client_can_not_ask_for_more_time_than_there_is(self) -> None:
        with FrontServer(LocalCalls(delay_s=5.0), timeout_s=0.2) as server:
            assert post(server, body(), **{wire.DEADLINE_HEADER: "1e9"}).status_code == 504

    def test_a_body_that_never_ends_is_given_up(self) -> None:
        with (
            FrontServer(timeout_s=0.3) as server,
            socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection,
        ):
            connection.sendall(b"POST /edit HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
            assert b" 504 " in connection.recv(4096)


class TestJoining:
    def test_equal_requests_share_an_edit_while_it_is_made_and_after(self, slow: FrontServer) -> None:
        with ThreadPoolExecutor(8) as threads:
            together = list(threads.map(lambda _: post(slow, body()), range(8)))
        together.append(post(slow, body()))
        assert {answer.json()["edited_image"] for answer in together} == {together[0].json()["edited_image"]}
        assert len(slow.calls.asked) == 1
        assert "thinkedit_joined_total 8.0" in CLIENT.get(f"{slow.url}/metrics").text

    def test_what_differs_in_anything_is_another_edit(self, server: FrontServer) -> None:
        other = base64.b64encode(encode_png(SOURCE[::-1])).decode()
        answers = [
            post(server, body(**fields)).json()["edited_image"]
            for fields in ({}, {"prompt": "make it green!"}, {"seed": 100}, {"image": other})
        ]
        assert len(set(answers)) == 4

    def test_a_failure_is_not_kept(self) -> None:
        calls = LocalCalls()
        calls.fails = EditorBroke("the lamp is out")
        with FrontServer(calls) as server:
            assert post(server, body()).status_code == 500
            calls.fails = None
            assert post(server, body()).status_code == 200

    def hang_up(self, server: FrontServer, after_s: float) -> None:
        with pytest.raises(httpx.ReadTimeout):
            CLIENT.post(f"{server.url}/edit", json=body(), timeout=after_s)

    def test_who_hangs_up_takes_its_edit_along(self, slow: FrontServer) -> None:
        self.hang_up(slow, 0.25)
        eventually(lambda: slow.calls.cancelled == 1)
        assert 'edits_total{outcome="cancelled"} 1.0' in CLIENT.get(f"{slow.url}/metrics").text

    def test_but_those_who_joined_it_get_theirs(self, slow: FrontServer) -> None:
        with ThreadPoolExecutor(1) as threads:
            gone = threading.Thread(target=self.hang_up, args=(slow, 0.4))
            gone.start()
            time.sleep(0.2)
            joined = threads.submit(post, slow, body())
            gone.join()
            assert joined.result().status_code == 200


def test_logs_and_errors_hold_no_prompt_no_token_and_no_picture(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    calls = LocalCalls()
    calls.fails = RuntimeError("an editor's own words")
    caplog.set_level(logging.DEBUG, "thinkedit")
    with FrontServer(calls, token=TOKEN) as server:
        answers = [
            # uvicorn hangs up after what the application didn't expect
            post(server, body(prompt="my secret plan"), Authorization=f"Bearer {TOKEN}", Connection="close"),
            post(server, body(prompt="my secret plan", seed="x"), Authorization=f"Bearer {TOKEN}"),
            post(server, body(prompt="my secret plan"), Authorization="Bearer my-secret-guess"),
        ]
    assert [answer.status_code for answer in answers] == [500, 422, 401]
    said = caplog.text + "".join(capfd.readouterr()) + "".join(answer.text for answer in answers)
    for secret in ("my secret plan", TOKEN, "my-secret-guess", body()["image"]):
        assert secret not in said
    assert "an editor's own words" not in "".join(answer.text for answer in answers)
