"""The HTTP editor against real servers: what is sent, what is refused, what is tried again and where."""

import asyncio
import io
import logging
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from edit_server import Answer, Edits, EditServer, Fails, Floods, Hangs, Raw, edited, png
from patience import eventually
from PIL import Image

from thinkedit import plugins
from thinkedit.configs.load import load_config
from thinkedit.envs.build import Parts
from thinkedit.envs.editors import faults, wire
from thinkedit.envs.editors.base import Editor
from thinkedit.envs.editors.cache import CachedEditor
from thinkedit.envs.editors.http import HTTPConfig, HTTPEditor
from thinkedit.errors import ConfigError, EditorError, ServiceTimeout, UnknownName
from thinkedit.rewards.judges.chat import _retry_after_s
from thinkedit.rewards.limits.meter import Bill, Meter, Usage
from thinkedit.testing import EditorContract
from thinkedit.types import RGB, Outcome

SOURCE = np.arange(48 * 64 * 3, dtype=np.uint32).reshape(48, 64, 3).astype(np.uint8)
TOKEN = "s3cret-t0ken"

NO_EDITS: list[tuple[Answer, str]] = [
    (Edits(raw="%%%no base64%%%"), "no base64"),
    (Edits(encode=lambda image: png(image)[:100]), "readable|truncated"),
    (Edits(encode=lambda image: b"GIF89a" + bytes(100)), "readable"),
    (Edits(change=np.zeros_like), "one colour"),
    (Edits(change=lambda image: image[:-1]), "64x47 for a source of 64x48"),
    (Edits(change=lambda image: np.tile(image, (2, 2, 1))), "128x96 for a source of 64x48"),
    (Edits(fields={"success": False, "error": "out of memory"}), "out of memory"),
    (Edits(fields={"success": 1}), "success is 1"),
    (Edits(fields={"seed": 8}), "was asked for, 8"),
    (Edits(fields={"seed": None}), "was asked for, None"),
    (Edits(fields={"edited_image": None}), "no edited_image"),
    (Raw(b"<html>"), "no JSON"),
    (Raw(b"[1]"), "list"),
    (Raw(b""), "no JSON"),
]

Make = Callable[..., HTTPEditor]


@pytest.fixture
def make() -> Iterator[Make]:
    """Builds editors that are quick to give up, and closes them."""
    made: list[HTTPEditor] = []

    def build(*servers: EditServer | str, **options: Any) -> HTTPEditor:
        urls = [server if isinstance(server, str) else server.url for server in servers]
        quick = dict(timeout_s=20.0, try_timeout_s=10.0, backoff_s=0.01, backoff_max_s=0.05)
        made.append(HTTPEditor(HTTPConfig(**{"urls": urls, **quick, **options})))
        return made[-1]

    yield build
    for editor in made:
        editor.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., EditServer]]:
    running: list[EditServer] = []

    def start(*answers: Answer, port: int = 0) -> EditServer:
        running.append(EditServer(*answers, port=port).__enter__())
        return running[-1]

    yield start
    for server in running:
        server.__exit__()


Serve = Callable[..., EditServer]


@pytest.fixture
def dead_url() -> str:
    with EditServer() as server:
        return server.url


def many(editor: Editor, count: int) -> list[RGB]:
    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(lambda seed: editor.edit(SOURCE, "x", seed=seed), range(count)))


class TestContract(EditorContract):
    @pytest.fixture(autouse=True)
    def _tools(self, make: Make, serve: Serve) -> None:
        self._make, self._serve, self._server = make, serve, serve()

    def make(self) -> Editor:
        return self._make(self._server, model="flux_kontext", deterministic=True)

    def source(self) -> RGB:
        return SOURCE.copy()

    def slow(self) -> Editor:
        return self._make(self._serve(Hangs()), timeout_s=0.4)

    def malformed(self) -> Iterator[Editor]:
        for answer, _ in NO_EDITS:
            yield self._make(self._serve(answer), tries=2)


class TestRequest:
    def test_it_says_all_that_the_protocol_knows(self, make: Make, serve: Serve) -> None:
        server = serve()
        image = make(server, model="flux_kontext", steps=7).edit(SOURCE, "make it blue", seed=2**31 + 5)
        np.testing.assert_array_equal(image, edited(SOURCE, "make it blue", 2**31 + 5))
        (call,) = server.calls
        picture = call.body.pop("image")
        assert not picture.startswith("data:")
        assert call.body == {
            "prompt": "make it blue",
            "seed": 2**31 + 5,
            "enhance_prompt": False,
            "num_inference_steps": 7,
            "num_inference_step": 7,
            "guidance_scale": 2.5,
        }

    @pytest.mark.parametrize(
        ("model", "fields"),
        [
            ("plain", {}),
            ("flux_kontext", dict(num_inference_steps=28, guidance_scale=2.5)),
            ("qwen_image_edit", dict(num_inference_steps=50, guidance_scale=5.0, negative_prompt=" ")),
            (
                "qwen_image_edit_lightning",
                dict(num_inference_steps=8, guidance_scale=1.0, negative_prompt=" "),
            ),
            (
                "omnigen2",
                dict(
                    num_inference_steps=50,
                    text_guidance_scale=5.0,
                    image_guidance_scale=1.5,
                    negative_prompt="",
                ),
            ),
            (
                "longcat",
                dict(num_inference_steps=50, guidance_scale=4.5, negative_prompt="", num_images_per_prompt=1),
            ),
        ],
    )
    def test_each_editor_has_its_fields(
        self, make: Make, serve: Serve, model: str, fields: dict[str, Any]
    ) -> None:
        server = serve()
        make(server, model=model).edit(SOURCE, "x", seed=0)
        body = server.calls[0].body
        if "num_inference_steps" in fields:
            fields = {**fields, "num_inference_step": fields["num_inference_steps"]}
        common = {"image", "prompt", "seed", "enhance_prompt"}
        assert {key: value for key, value in body.items() if key not in common} == fields

    def test_own_fields_come_on_top(self, make: Make, serve: Serve) -> None:
        server = serve()
        make(server, model="longcat", fields={"guidance_scale": 3.0, "own": [1]}).edit(SOURCE, "x", seed=0)
        body = server.calls[0].body
        assert (body["guidance_scale"], body["own"], body["negative_prompt"]) == (3.0, [1], "")

    def test_the_server_learns_how_long_we_wait(self, make: Make, serve: Serve) -> None:
        server = serve()
        make(server, timeout_s=9.0, try_timeout_s=4.0).edit(SOURCE, "x", seed=0)
        make(server, timeout_s=2.0, try_timeout_s=4.0).edit(SOURCE, "x", seed=0)
        one, two = (float(call.headers[wire.DEADLINE_HEADER]) for call in server.calls)
        assert one == 4.0
        assert 1.0 < two <= 2.0

    def test_equal_edits_have_equal_keys_and_others_have_others(self, make: Make, serve: Serve) -> None:
        server = serve()
        editor = make(server)
        other = SOURCE.copy()
        other[0, 0, 0] ^= 1
        editor.edit(SOURCE, "x", seed=0)
        make(server).edit(SOURCE, "x", seed=0)
        for source, prompt, seed in ((other, "x", 0), (SOURCE, "y", 0), (SOURCE, "x", 1)):
            editor.edit(source, prompt, seed=seed)
        for options in (dict(steps=9), dict(revision="2"), dict(fields={"guidance_scale": 1.0})):
            make(server, **options).edit(SOURCE, "x", seed=0)
        keys = [call.key for call in server.calls]
        assert keys[0] == keys[1]
        assert len(set(keys)) == len(keys) - 1


class TestRefusedAnswers:
    @pytest.mark.parametrize(("answer", "says"), NO_EDITS)
    def test_a_200_that_is_no_edit_is_an_error(
        self, make: Make, serve: Serve, answer: Answer, says: str
    ) -> None:
        server = serve(answer)
        with pytest.raises(EditorError, match=says) as caught:
            make(server, tries=3).edit(SOURCE, "x", seed=7)
        assert caught.value.outcome is Outcome.EDITOR_FAILED
        assert len(server.calls) <= 3

    def test_another_server_may_do_better(self, make: Make, serve: Serve) -> None:
        liar, honest = serve(Edits(change=np.zeros_like)), serve()
        editor = make(liar, honest)
        for seed in range(8):
            np.testing.assert_array_equal(editor.edit(SOURCE, "x", seed=seed), edited(SOURCE, "x", seed))
        assert 1 <= len(liar.calls) <= 3  # left alone after three in a row

    def test_the_one_server_is_not_asked_twice_for_the_same_wrong_picture(
        self, make: Make, serve: Serve
    ) -> None:
        server = serve(Edits(change=np.zeros_like))
        with pytest.raises(EditorError):
            make(server).edit(SOURCE, "x", seed=0)
        assert len(server.calls) == 1

    def test_a_constant_source_may_stay_constant(self, make: Make, serve: Serve) -> None:
        white = np.full((16, 16, 3), 255, np.uint8)
        np.testing.assert_array_equal(make(serve()).edit(white, "x", seed=0), edited(white, "x", 0))

    def test_a_flood_is_cut_off(self, make: Make, serve: Serve) -> None:
        flood = Floods()
        with pytest.raises(EditorError, match="more than"):
            make(serve(flood)).edit(SOURCE, "x", seed=0)
        assert sum(flood.sent) < 2**27

    @pytest.mark.parametrize("file", ["header", "bomb"])
    def test_a_huge_picture_is_refused_by_its_header(self, make: Make, serve: Serve, file: str) -> None:
        buffer = io.BytesIO()
        side = 5000 if file == "bomb" else 100
        Image.new("L", (side, side)).save(buffer, "PNG")
        data = bytearray(buffer.getvalue())
        if file == "header":
            data[16:24] = (60_000).to_bytes(4) * 2
        with pytest.raises(EditorError, match=r"pixels|readable"):
            make(serve(Edits(encode=lambda _: bytes(data))), model="qwen_image_edit").edit(
                SOURCE, "x", seed=0
            )


class TestSizes:
    @pytest.mark.parametrize(
        ("model", "size", "good"),
        [
            ("plain", (64, 48), True),
            ("flux_kontext", (60, 50), False),
            ("flux_kontext", (64, 48), True),  # of a source of 70 x 50
            ("flux_kontext", (80, 64), True),
            ("flux_kontext", (96, 64), False),
            ("qwen_image_edit", (1216, 864), True),
            ("qwen_image_edit", (1024, 1024), False),
            ("omnigen2", (64, 48), False),
        ],
    )
    def test_a_size_the_editor_is_known_for_is_scaled_back(
        self, make: Make, serve: Serve, model: str, size: tuple[int, int], good: bool
    ) -> None:
        source = SOURCE if model == "plain" else np.pad(SOURCE, ((1, 1), (3, 3), (0, 0)))
        editor = make(
            serve(Edits(change=lambda image: np.array(Image.fromarray(image).resize(size)))), model=model
        )
        if good:
            assert editor.edit(source, "x", seed=0).shape == source.shape
        else:
            with pytest.raises(EditorError, match="for a source of 70x50"):
                editor.edit(source, "x", seed=0)

    def test_transparent_and_grey_answers_become_rgb(self, make: Make, serve: Serve) -> None:
        def transparent(image: RGB) -> bytes:
            return png(np.dstack([image, np.zeros(image.shape[:2], np.uint8)]))

        def half(image: RGB) -> bytes:
            alpha = np.zeros(image.shape[:2], np.uint8)
            alpha[:, :10] = 255
            return png(np.dstack([image, alpha]))

        image = make(serve(Edits(encode=half))).edit(SOURCE, "x", seed=0)
        np.testing.assert_array_equal(image[:, :10], edited(SOURCE, "x", 0)[:, :10])
        assert (image[:, 10:] == 255).all()
        with pytest.raises(EditorError, match="one colour"):
            make(serve(Edits(encode=transparent))).edit(SOURCE, "x", seed=0)


class TestTries:
    @pytest.mark.parametrize("status", [500, 502, 503, 504, 408, 429])
    def test_a_passing_fault_is_tried_again_with_the_same_key(
        self, make: Make, serve: Serve, status: int
    ) -> None:
        server = serve(Fails(status), Fails(status), Edits())
        np.testing.assert_array_equal(make(server).edit(SOURCE, "x", seed=0), edited(SOURCE, "x", 0))
        assert len(server.calls) == 3
        assert len({call.key for call in server.calls}) == 1

    @pytest.mark.parametrize("status", [500, 503, 429])
    def test_tries_are_bounded(self, make: Make, serve: Serve, status: int) -> None:
        server = serve(Fails(status))
        with pytest.raises(EditorError, match=rf"HTTP {status}: out of order \(try 2\)") as caught:
            make(server, tries=2).edit(SOURCE, "x", seed=0)
        assert caught.value.outcome is Outcome.EDITOR_FAILED
        assert len(server.calls) == 2

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 307])
    def test_a_refused_request_is_not_repeated(self, make: Make, serve: Serve, status: int) -> None:
        server = serve(Fails(status, headers={"Location": "/edit"}))
        with pytest.raises(EditorError, match=f"HTTP {status}"):
            make(server).edit(SOURCE, "x", seed=0)
        assert len(server.calls) == 1

    def test_pauses_grow(self, make: Make, serve: Serve) -> None:
        server = serve(Fails(500), Fails(500), Fails(500), Edits())
        make(server, backoff_s=0.1, backoff_max_s=10.0, breaker_failures=9).edit(SOURCE, "x", seed=0)
        at = [call.at for call in server.calls]
        for k, (before, after) in enumerate(pairwise(at)):
            assert after - before >= 0.05 * 2**k

    @pytest.mark.parametrize("kind", ["seconds", "date"])
    @pytest.mark.parametrize("status", [429, 503])
    def test_retry_after_is_obeyed(self, make: Make, serve: Serve, status: int, kind: str) -> None:
        # HTTP dates have whole seconds, so that one second of two may be lost to rounding
        wait = "1" if kind == "seconds" else format_datetime(datetime.now(UTC) + timedelta(seconds=2), True)
        server = serve(Fails(status, headers={"Retry-After": wait}), Edits())
        make(server, breaker_failures=1).edit(SOURCE, "x", seed=0)
        first, second = server.calls
        assert second.at - first.at >= (0.99 if kind == "seconds" else 0.5)

    def test_while_one_is_busy_the_other_is_asked(self, make: Make, serve: Serve) -> None:
        busy, idle = serve(Fails(429, headers={"Retry-After": "30"})), serve()
        editor = make(busy, idle)
        start = time.monotonic()
        for seed in range(6):
            editor.edit(SOURCE, "x", seed=seed)
        assert time.monotonic() - start < 10
        assert len(busy.calls) <= 1
        assert len(idle.calls) == 6

    def test_who_was_sent_away_for_long_still_gets_its_turn_elsewhere(self, make: Make, serve: Serve) -> None:
        busy, slow = serve(Fails(429, headers={"Retry-After": "3600"})), serve(Edits(delay_s=0.3))
        assert len(many(make(busy, slow, concurrency=1), 3)) == 3
        assert (len(busy.calls), len(slow.calls)) == (1, 3)

    def test_a_wait_beyond_the_deadline_is_not_begun(self, make: Make, serve: Serve) -> None:
        server = serve(Fails(429, headers={"Retry-After": "3600"}))
        start = time.monotonic()
        with pytest.raises(ServiceTimeout, match="429"):
            make(server).edit(SOURCE, "x", seed=0)
        assert time.monotonic() - start < 5

    def test_a_server_that_hangs_is_left_for_another(self, make: Make, serve: Serve) -> None:
        hanging, good = serve(Hangs()), serve()
        editor = make(hanging, good, try_timeout_s=0.6)
        for seed in range(4):
            np.testing.assert_array_equal(editor.edit(SOURCE, "x", seed=seed), edited(SOURCE, "x", seed))
        assert len(hanging.calls) <= 3
        eventually(lambda: hanging.dropped == len(hanging.calls))
        assert {c.key for c in hanging.calls} <= {c.key for c in good.calls}

    @pytest.mark.parametrize(
        "options",
        [
            pytest.param(dict(timeout_s=0.4), id="deadline"),
            pytest.param(dict(try_timeout_s=0.2, tries=2), id="each try"),
        ],
    )
    def test_only_silence_is_a_timeout(self, make: Make, serve: Serve, options: dict[str, Any]) -> None:
        with pytest.raises(ServiceTimeout, match=r"within 0\.[24] s") as caught:
            make(serve(Hangs()), **options).edit(SOURCE, "x", seed=0)
        assert caught.value.outcome is Outcome.TIMEOUT

    def test_the_outcome_is_the_same_on_every_run(self, make: Make, serve: Serve) -> None:
        server = serve(Fails(500))
        said = []
        for _ in range(3):
            with pytest.raises(EditorError) as caught:
                make(server, tries=2).edit(SOURCE, "x", seed=0)
            said.append(str(caught.value))
        assert len(set(said)) == 1
        assert len(server.calls) == 6


class TestSeveralServers:
    def test_the_least_busy_gets_the_next_edit(self, make: Make, serve: Serve) -> None:
        slow, quick = serve(Edits(delay_s=0.4)), serve(Edits(delay_s=0.02))
        many(make(slow, quick, concurrency=2), 16)
        assert len(slow.calls) + len(quick.calls) == 16
        assert len(quick.calls) >= 2 * len(slow.calls)

    def test_equal_servers_share_alike(self, make: Make, serve: Serve) -> None:
        servers = [serve(Edits(delay_s=0.1)) for _ in range(3)]
        many(make(*servers), 9)
        assert [len(server.calls) for server in servers] == [3, 3, 3]

    def test_a_server_never_has_more_than_its_share(self, make: Make, serve: Serve) -> None:
        server = serve(Edits(delay_s=0.05))
        assert len(many(make(server, concurrency=2), 8)) == 8
        assert server.most_in_flight == 2

    def test_a_dead_server_costs_nothing_but_time(self, make: Make, serve: Serve, dead_url: str) -> None:
        server = serve()
        images = many(make(dead_url, server), 6)
        for seed, image in enumerate(images):
            np.testing.assert_array_equal(image, edited(SOURCE, "x", seed))
        assert len(server.calls) == 6

    def test_no_server_at_all_is_an_error(self, make: Make, dead_url: str) -> None:
        with pytest.raises(EditorError, match="ConnectError"):
            make(dead_url, tries=2).edit(SOURCE, "x", seed=0)

    def test_a_server_that_dies_in_the_middle_loses_no_edit(self, make: Make, serve: Serve) -> None:
        dying, good = serve(Edits(delay_s=0.5)), serve(Edits(delay_s=0.05))
        editor = make(dying, good)
        with ThreadPoolExecutor(8) as threads:
            edits = [threads.submit(editor.edit, SOURCE, "x", seed=seed) for seed in range(8)]
            deadline = time.monotonic() + 10
            while not dying.in_flight and time.monotonic() < deadline:
                time.sleep(0.01)
            dying.kill()
            for seed, future in enumerate(edits):
                np.testing.assert_array_equal(future.result(timeout=20), edited(SOURCE, "x", seed))
        asked = [call.key for server in (dying, good) for call in server.calls]
        assert max(asked.count(key) for key in asked) <= 2


class TestBreaker:
    def test_a_sick_server_is_left_alone_until_a_real_edit_works_again(
        self, make: Make, serve: Serve
    ) -> None:
        sick, good = serve(Edits(), *[Fails(500)] * 3), serve()
        editor = make(sick, good, model="flux_kontext", breaker_rest_s=1.0, concurrency=1)
        many(editor, 2)  # both have made a picture
        assert (len(sick.calls), len(good.calls)) == (1, 1)
        seed = 100
        while len(sick.calls) < 4:
            editor.edit(SOURCE, "x", seed=seed)
            seed += 1
        for _ in range(5):  # open: nothing arrives within the rest
            editor.edit(SOURCE, "y", seed=seed)
            seed += 1
        assert len(sick.calls) == 4
        assert sick.asked == []

        sick.answers = [Fails(500)] * 5 + [Edits()]
        time.sleep(1.3)
        editor.edit(SOURCE, "z", seed=0)  # its probe fails
        eventually(lambda: len(sick.calls) == 5)
        time.sleep(1.3)
        editor.edit(SOURCE, "z", seed=1)  # this one's succeeds
        eventually(lambda: len(sick.calls) == 6)
        assert sick.asked == ["/health", "/status"] * 2
        one, two = (call.body for call in sick.calls[4:])
        assert one["num_inference_steps"] == two["num_inference_step"] == 2  # a small edit
        assert one["seed"] != two["seed"]  # that no cache answers
        eventually(lambda: not sick.in_flight)
        time.sleep(0.1)  # the answer's way back
        many(editor, 4)
        assert len(sick.calls) > 6

    def test_a_lone_server_that_comes_back_is_waited_for(
        self, make: Make, serve: Serve, dead_url: str
    ) -> None:
        editor = make(dead_url, tries=10, breaker_rest_s=0.3, breaker_failures=2)
        with ThreadPoolExecutor(1) as threads:
            edit = threads.submit(editor.edit, SOURCE, "x", seed=3)
            time.sleep(0.2)
            serve(port=int(dead_url.rsplit(":", 1)[1]))
            np.testing.assert_array_equal(edit.result(timeout=20), edited(SOURCE, "x", 3))

    def test_with_all_open_an_edit_fails_after_bounded_probes(self, make: Make, serve: Serve) -> None:
        server = serve(Fails(500))
        editor = make(server, tries=3, breaker_failures=3, breaker_rest_s=0.1)
        with pytest.raises(EditorError, match="HTTP 500"):
            editor.edit(SOURCE, "x", seed=0)
        assert len(server.calls) == 3
        with pytest.raises(EditorError, match=r"no healthy endpoint; .*probe: .*HTTP 500"):
            editor.edit(SOURCE, "x", seed=1)
        assert len(server.calls) == 6  # three probes, and no edit

    @pytest.mark.parametrize("options", [dict(timeout_s=1.0), dict(try_timeout_s=1.0, tries=1)])
    def test_silence_opens_it_too(self, make: Make, serve: Serve, options: dict[str, Any]) -> None:
        server = serve(Hangs())
        editor = make(server, breaker_failures=2, breaker_rest_s=60.0, **options)
        for seed in range(2):
            with pytest.raises(ServiceTimeout):
                editor.edit(SOURCE, "x", seed=seed)
        with pytest.raises(
            ServiceTimeout, match=r"no endpoint takes an edit before the deadline; .*no answer"
        ):
            editor.edit(SOURCE, "x", seed=2)
        assert len(server.calls) == 2

    def test_a_server_that_says_it_is_not_ready_gets_no_probe_edit(self, make: Make, serve: Serve) -> None:
        server = serve(Fails(500))
        editor = make(server, tries=2, breaker_failures=1, breaker_rest_s=0.05)
        server.status = {"system_ready": False}
        with pytest.raises(EditorError, match="not ready"):
            editor.edit(SOURCE, "x", seed=0)
        server.status = None
        with pytest.raises(EditorError, match="/status: HTTP 503: no manager"):
            editor.edit(SOURCE, "x", seed=0)
        assert len(server.calls) == 1

    def test_refused_and_busy_answers_leave_it_closed(self, make: Make, serve: Serve) -> None:
        server = serve(*[Fails(422), Fails(429)] * 3, Edits())
        editor = make(server, tries=1, breaker_failures=1)
        for seed in range(6):
            with pytest.raises(EditorError):
                editor.edit(SOURCE, "x", seed=seed)
        editor.edit(SOURCE, "x", seed=6)
        assert server.asked == []

    def test_check_tells_who_is_well(self, make: Make, serve: Serve, dead_url: str) -> None:
        good, sick = serve(), serve(Edits(change=np.zeros_like))
        said = make(good, sick, dead_url).check(SOURCE)
        assert said[good.url] == ""
        assert "one colour" in said[sick.url]
        assert "ConnectError" in said[dead_url]


class TestHedging:
    def test_it_is_off_by_default(self, make: Make, serve: Serve) -> None:
        servers = serve(Edits(delay_s=0.6)), serve(Edits(delay_s=0.6))
        make(*servers).edit(SOURCE, "x", seed=0)
        assert sum(len(server.calls) for server in servers) == 1

    @staticmethod
    def in_turn(servers: tuple[EditServer, ...], *answers: Answer) -> None:
        """The first request gets the first answer, whichever server it comes to."""
        turns = iter(answers)
        for server in servers:
            server.choose = lambda: next(turns)

    def test_one_more_request_goes_out_and_the_slow_one_is_dropped(self, make: Make, serve: Serve) -> None:
        servers = serve(), serve(), serve()
        self.in_turn(servers, Hangs(), Edits(delay_s=0.5))
        image = make(*servers, hedge_after_s=0.1).edit(SOURCE, "x", seed=0)
        np.testing.assert_array_equal(image, edited(SOURCE, "x", 0))
        assert sorted(len(server.calls) for server in servers) == [0, 1, 1]
        assert len({call.key for server in servers for call in server.calls}) == 1
        eventually(lambda: sum(server.dropped for server in servers) == 1)

    def test_a_quick_answer_needs_none(self, make: Make, serve: Serve) -> None:
        servers = serve(), serve()
        make(*servers, hedge_after_s=3.0).edit(SOURCE, "x", seed=0)
        assert sum(len(server.calls) for server in servers) == 1

    def test_waiting_for_its_turn_is_not_slowness(self, make: Make, serve: Serve) -> None:
        class Slowly(Meter):
            turns = 0

            @asynccontextmanager
            async def call(
                self, model: str, guess: Usage, *, patience_s: float | None = None
            ) -> AsyncIterator[Bill]:
                self.turns += 1
                await asyncio.sleep(1.0)
                yield Bill(guess)

        servers, meter = (serve(), serve()), Slowly(None, "editor", 20.0)
        editor = make(*servers, hedge_after_s=0.5)
        editor.use_meter(meter)
        editor.edit(SOURCE, "x", seed=0)
        assert meter.turns == 1

    def test_a_lone_server_is_not_asked_twice(self, make: Make, serve: Serve) -> None:
        server = serve(Edits(delay_s=0.4))
        make(server, hedge_after_s=0.05).edit(SOURCE, "x", seed=0)
        assert len(server.calls) == 1

    def test_a_failed_hedge_leaves_the_first_its_chance(self, make: Make, serve: Serve) -> None:
        servers = serve(), serve()
        self.in_turn(servers, Edits(delay_s=0.6), Fails(500))
        image = make(*servers, hedge_after_s=0.1).edit(SOURCE, "x", seed=0)
        np.testing.assert_array_equal(image, edited(SOURCE, "x", 0))
        assert [len(server.calls) for server in servers] == [1, 1]


@pytest.mark.parametrize(
    "date", ["21 Oct 99999999999999999999 07:28:00 GMT", "21 Oct 2015 07:28:00 +" + "9" * 20]
)
def test_a_date_that_no_calendar_holds_asks_for_no_wait(date: str) -> None:
    assert faults.seconds(f"Wed, {date}") is None
    assert _retry_after_s(f"Wed, {date}") == 0.0


class TestSecrets:
    def test_the_token_is_sent_and_nowhere_told(
        self,
        make: Make,
        serve: Serve,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setenv("EDITOR_TOKEN", TOKEN)
        caplog.set_level(logging.DEBUG)
        echo = {"detail": f"Authorization: Bearer {TOKEN} is unknown here"}
        server = serve(Edits(), Fails(401, echo), Fails(500, echo), Edits(fields={"seed": TOKEN}))
        editor = make(server, token_env="EDITOR_TOKEN", tries=1, breaker_failures=1, breaker_rest_s=0.05)
        editor.edit(SOURCE, "x", seed=0)
        assert server.calls[0].headers["Authorization"] == f"Bearer {TOKEN}"
        said = []
        for _ in range(3):
            with pytest.raises(EditorError) as caught:
                editor.edit(SOURCE, "x", seed=0)
            error: BaseException | None = caught.value
            while error is not None:
                said.append(repr(error))
                error = error.__cause__ or error.__context__
        assert "unknown here" in said[0]
        assert TOKEN not in f"{said} {caplog.text} {editor!r} {vars(editor)['_config']!r} {editor.settings()}"

    def test_without_one_none_is_sent(self, make: Make, serve: Serve) -> None:
        server = serve()
        make(server).edit(SOURCE, "x", seed=0)
        assert "Authorization" not in server.calls[0].headers

    def test_a_missing_variable_is_told_by_name(
        self, make: Make, serve: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("EDITOR_TOKEN", raising=False)
        with pytest.raises(ConfigError, match="EDITOR_TOKEN"):
            make(serve(), token_env="EDITOR_TOKEN")

    @pytest.mark.parametrize("token", ["two words", "umlaut-ü", "line\nbreak"])
    def test_a_token_that_fits_no_header_is_refused_without_a_quote(
        self, make: Make, serve: Serve, monkeypatch: pytest.MonkeyPatch, token: str
    ) -> None:
        monkeypatch.setenv("EDITOR_TOKEN", token)
        with pytest.raises(ConfigError, match="EDITOR_TOKEN") as caught:
            make(serve(), token_env="EDITOR_TOKEN")
        assert token not in str(caught.value)

    def test_a_validation_error_does_not_echo_the_picture(self, make: Make, serve: Serve) -> None:
        detail = [{"loc": ["body", "seed"], "msg": "no integer", "input": "iVBORw0KGgo" * 9}]
        with pytest.raises(EditorError, match="no integer") as caught:
            make(serve(Fails(422, {"detail": detail}))).edit(SOURCE, "x", seed=0)
        assert "iVBORw" not in str(caught.value)
        assert len(str(caught.value)) < 400


class TestCallers:
    def test_blocking_and_async_calls_share_connections_from_any_loop(self, make: Make, serve: Serve) -> None:
        server = serve()
        editor = make(server)

        async def inside() -> tuple[RGB, RGB]:
            return editor.edit(SOURCE, "x", seed=1), await editor.edit_async(SOURCE, "x", seed=1)

        expected = edited(SOURCE, "x", 1)
        for image in (editor.edit(SOURCE, "x", seed=1), *asyncio.run(inside()), *asyncio.run(inside())):
            np.testing.assert_array_equal(image, expected)

    def test_a_cancelled_edit_is_dropped_at_the_server(self, make: Make, serve: Serve) -> None:
        server = serve(Hangs(), Edits())
        editor = make(server, concurrency=1)

        async def impatient() -> RGB:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await editor.edit_async(SOURCE, "x", seed=0)
            return await editor.edit_async(SOURCE, "x", seed=1)  # its place is free again

        np.testing.assert_array_equal(asyncio.run(impatient()), edited(SOURCE, "x", 1))
        eventually(lambda: server.dropped == 1)

    def test_close_ends_edits_under_way_and_a_later_edit_connects_anew(
        self, make: Make, serve: Serve
    ) -> None:
        server = serve(Hangs(), Hangs(), Edits())
        editor = make(server)

        async def ask() -> list[RGB | BaseException]:
            edits = [asyncio.create_task(editor.edit_async(SOURCE, "x", seed=k)) for k in range(2)]
            while len(server.calls) < 2:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(editor.close)
            return await asyncio.gather(*edits, return_exceptions=True)

        for said in asyncio.run(ask()):
            assert isinstance(said, EditorError)
            assert "closed" in str(said)
        editor.close()
        np.testing.assert_array_equal(editor.edit(SOURCE, "x", seed=5), edited(SOURCE, "x", 5))

    def test_nothing_connects_before_the_first_edit(self, make: Make, serve: Serve) -> None:
        server = serve()
        make(server).close()
        assert (server.calls, server.asked) == ([], [])

    def test_eight_siblings_cause_one_edit(self, make: Make, serve: Serve) -> None:
        server = serve(Edits(delay_s=0.1))
        editor = CachedEditor(make(server))

        async def siblings() -> list[RGB]:
            return await asyncio.gather(*(editor.edit_async(SOURCE, "x", seed=0) for _ in range(8)))

        assert len(asyncio.run(siblings())) == 8
        assert len(server.calls) == 1


class TestConfig:
    def test_nothing_of_it_is_imported_before_it_is_built(self) -> None:
        code = (
            "import sys, thinkedit.envs, thinkedit.envs.editors.http, thinkedit.envs.editors.openai_images\n"
            "print(sorted({'httpx', 'openai'} & sys.modules.keys()))"
        )
        answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert answer.stdout.strip() == "[]"

    def test_without_httpx_it_says_what_to_install(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "httpx", None)
        with pytest.raises(ConfigError, match=r"thinkedit\[serve\]"):
            make("http://127.0.0.1:1")

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            (dict(urls=[]), "at least one"),
            (dict(urls=["127.0.0.1:8005"]), "must look like"),
            (dict(urls=["ftp://x"]), "must look like"),
            (dict(urls=["http://x", "http://x/"]), "twice"),
            (dict(urls=["http://me:pass@x"]), "environment variable"),
            (dict(urls=["http://x?key=pass"]), "environment variable"),
            (dict(fields={"seed": 3}), "seed"),
            (dict(fields={"num_inference_step": 3}), "steps"),
            (dict(steps=0), "steps"),
            (dict(tries=0), "tries"),
            (dict(timeout_s=0.0), "timeout_s"),
            (dict(hedge_after_s=0.0), "hedge_after_s"),
            (dict(backoff_s=2.0, backoff_max_s=1.0), "backoff"),
        ],
    )
    def test_what_cannot_work_is_refused(self, make: Make, options: dict[str, Any], says: str) -> None:
        with pytest.raises(ConfigError, match=says) as caught:
            make("http://127.0.0.1:1", **options)
        assert "pass" not in str(caught.value)

    def test_unknown_names_offer_the_nearest(self, make: Make) -> None:
        with pytest.raises(UnknownName, match="'flux_kontext'"):
            make("http://127.0.0.1:1", model="flux_context")
        with pytest.raises(UnknownName, match="'aspect'"):
            make("http://127.0.0.1:1", resize="aspekt")

    @pytest.mark.parametrize(
        "choice", ["http", "http_flux_kontext", "http_qwen_image_edit", "http_omnigen2", "http_longcat"]
    )
    def test_the_shipped_choices_build(self, choice: str) -> None:
        config = load_config("demo", [f"editor={choice}"])
        editor = plugins.build("editors", config.editor.name, config.editor.options)
        assert isinstance(editor, HTTPEditor)
        assert config.editor.timeout_s > config.editor.options["timeout_s"]

    def test_one_line_of_yaml_puts_the_world_behind_a_server(self, serve: Serve) -> None:
        server = serve()
        config = load_config("demo", ["editor=http", f"editor.options.urls=[{server.url}]"])
        parts = Parts.from_config(config)
        task = parts.tasks.task("train", 0)
        image = parts.editor.edit(task.source, task.instruction, seed=1)
        np.testing.assert_array_equal(image, edited(task.source, task.instruction, 1))
        parts.close()
