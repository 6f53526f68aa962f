"""The OpenAI images-edit editor: the official client against a real server."""

import asyncio
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from edit_server import Answer, Edits, EditServer, Fails, Floods, Hangs, Raw, edited
from patience import eventually
from PIL import Image

from thinkedit import plugins
from thinkedit.configs.load import load_config
from thinkedit.envs.editors.base import Editor
from thinkedit.envs.editors.openai_images import OpenAIImagesConfig, OpenAIImagesEditor, frame
from thinkedit.errors import ConfigError, EditorError, ServiceTimeout, UnknownName
from thinkedit.testing import EditorContract
from thinkedit.types import RGB

SOURCE = np.arange(48 * 64 * 3, dtype=np.uint32).reshape(48, 64, 3).astype(np.uint8)
KEY = "sk-s3cret"

Make = Callable[..., tuple[OpenAIImagesEditor, EditServer]]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def make() -> Iterator[Make]:
    running: list[tuple[OpenAIImagesEditor, EditServer]] = []

    def build(*answers: Answer, **options: Any) -> tuple[OpenAIImagesEditor, EditServer]:
        server = EditServer(*answers).__enter__()
        quick = dict(timeout_s=20.0, try_timeout_s=10.0, backoff_s=0.01, backoff_max_s=0.05)
        config = OpenAIImagesConfig(**{"base_url": f"{server.url}/v1", "sizes": [], **quick, **options})
        running.append((OpenAIImagesEditor(config), server))
        return running[-1]

    yield build
    for editor, server in running:
        editor.close()
        server.__exit__()


class TestContract(EditorContract):
    @pytest.fixture(autouse=True)
    def _tools(self, make: Make) -> None:
        self._make = make

    def make(self) -> Editor:
        return self._make(sizes=["96x64"])[0]

    def source(self) -> RGB:
        return SOURCE.copy()

    def slow(self) -> Editor:
        return self._make(Hangs(), timeout_s=0.4)[0]

    def malformed(self) -> Iterator[Editor]:
        for answer in (
            Edits(raw="%%%"),
            Edits(change=np.zeros_like),
            Edits(encode=lambda _: b"x"),
            Raw(b"[1]"),
        ):
            yield self._make(answer, tries=2)[0]


def test_it_asks_for_one_image_of_a_known_size_with_the_key(make: Make) -> None:
    editor, server = make(model="some-model", sizes=["96x64", "64x96"], fields={"quality": "high"})
    assert editor.edit(SOURCE, "make it blue", seed=4).shape == SOURCE.shape
    (call,) = server.calls
    assert call.body == {
        "model": "some-model",
        "prompt": "make it blue",
        "n": "1",
        "size": "96x64",
        "quality": "high",
    }
    assert call.headers["Authorization"] == f"Bearer {KEY}"


def test_without_sizes_the_source_goes_as_it_is_and_a_seed_only_when_told(make: Make) -> None:
    editor, server = make(send_seed=True)
    np.testing.assert_array_equal(editor.edit(SOURCE, "x", seed=4), edited(SOURCE, "x", 4))
    assert server.calls[0].body["seed"] == "4"
    assert "size" not in server.calls[0].body
    assert not editor.deterministic


def test_objects_stay_where_they_were(make: Make) -> None:
    source = np.full((50, 100, 3), 200, np.uint8)
    source[10:30, 60:90] = (250, 0, 0)

    def darker(image: RGB) -> RGB:
        return image // 2

    editor, _ = make(Edits(change=darker), sizes=["300x200", "200x300"])
    image = editor.edit(source, "x", seed=0).astype(int)
    expected = darker(edited(source, "x", 0)).astype(int)
    assert np.abs(image - expected).mean() < 3
    assert np.abs(image - expected)[14:26, 64:86].max() <= 2


@pytest.mark.parametrize(
    ("shape", "size", "box"),
    [
        ((512, 512), (1024, 1024), (0, 0, 1024, 1024)),
        ((480, 640), (1536, 1024), (85, 0, 1450, 1024)),
        ((400, 640), (1536, 1024), (0, 32, 1536, 992)),
        ((900, 300), (1024, 1536), (256, 0, 768, 1536)),
        ((1, 3000), (1536, 1024), (0, 511, 1536, 512)),
    ],
)
def test_the_nearest_shape_is_taken(
    shape: tuple[int, int], size: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    source = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    canvas, where = frame(source, [(1024, 1024), (1536, 1024), (1024, 1536)])
    assert (canvas.shape[1::-1], where) == (size, box)


def test_passing_faults_are_tried_again_with_one_key(make: Make) -> None:
    editor, server = make(Fails(500), Fails(429, headers={"Retry-After": "1"}), Edits())
    editor.edit(SOURCE, "x", seed=0)
    one, two, three = server.calls
    assert one.key == two.key == three.key
    assert three.at - two.at >= 0.99


def test_tries_are_bounded_and_ours_alone(make: Make) -> None:
    editor, server = make(Fails(500, {"error": {"message": "overloaded"}}), tries=3)
    with pytest.raises(EditorError, match=r"HTTP 500: .*overloaded.* \(try 3\)"):
        editor.edit(SOURCE, "x", seed=0)
    assert len(server.calls) == 3


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (
            Fails(400, {"error": {"code": "moderation_blocked", "message": "Your request was rejected"}}),
            "moderation_blocked",
        ),
        (Fails(401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}), r"key provided: \*\*\*"),
        (Fails(429, {"error": {"code": "insufficient_quota", "message": "no more"}}), "insufficient_quota"),
    ],
)
def test_a_refusal_is_final_and_keeps_the_key_to_itself(make: Make, answer: Answer, says: str) -> None:
    editor, server = make(answer)
    with pytest.raises(EditorError, match=says) as caught:
        editor.edit(SOURCE, "x", seed=0)
    assert len(server.calls) == 1
    assert KEY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (Edits(raw="%%%"), "no base64"),
        (Edits(encode=lambda _: b"no picture"), "readable"),
        (Edits(change=np.zeros_like), "one colour"),
        (Edits(change=lambda image: image[:, :8]), "8x48 for a source of 64x48"),
        (Edits(fields={"data": []}), "no single image"),
        (Edits(fields={"data": [{}]}), "no image in base64"),
        (Raw(b"<html>"), "no single image"),
    ],
)
def test_a_200_that_is_no_edit_is_an_error_after_bounded_calls(make: Make, answer: Answer, says: str) -> None:
    editor, server = make(answer, tries=2)
    with pytest.raises(EditorError, match=says):
        editor.edit(SOURCE, "x", seed=0)
    assert len(server.calls) == 2


def test_an_answer_with_a_url_is_paid_for_once(make: Make) -> None:
    editor, server = make(Edits(fields={"data": [{"url": "http://127.0.0.1:1/x.png"}]}), tries=2)
    with pytest.raises(EditorError, match="a URL is not followed"):
        editor.edit(SOURCE, "x", seed=0)
    assert len(server.calls) == 1


def test_a_size_of_the_same_shape_is_scaled_back(make: Make) -> None:
    def larger(image: RGB) -> RGB:
        return np.array(Image.fromarray(image).resize((256, 192)))

    editor, _ = make(Edits(change=larger))
    assert editor.edit(SOURCE, "x", seed=0).shape == SOURCE.shape


def test_a_flood_is_cut_off(make: Make) -> None:
    flood = Floods()
    editor, _ = make(flood)
    with pytest.raises(EditorError, match="more than"):
        editor.edit(SOURCE, "x", seed=0)
    assert sum(flood.sent) < 2**27


@pytest.mark.parametrize("options", [dict(timeout_s=0.4), dict(try_timeout_s=0.2, tries=2)])
def test_silence_is_a_timeout(make: Make, options: dict[str, Any]) -> None:
    editor, server = make(Hangs(), **options)
    with pytest.raises(ServiceTimeout, match=r"within 0\.[24] s"):
        editor.edit(SOURCE, "x", seed=0)
    eventually(lambda: server.dropped == len(server.calls))


def test_nobody_there_is_an_error() -> None:
    with EditServer() as server:
        url = f"{server.url}/v1"
    editor = OpenAIImagesEditor(OpenAIImagesConfig(base_url=url, tries=2, backoff_s=0.01))
    with pytest.raises(EditorError, match="connection failed"):
        editor.edit(SOURCE, "x", seed=0)
    editor.close()


def test_no_more_requests_than_allowed_at_a_time(make: Make) -> None:
    editor, server = make(Edits(delay_s=0.1), concurrency=2)

    async def ask() -> None:
        await asyncio.gather(*(editor.edit_async(SOURCE, "x", seed=seed) for seed in range(6)))

    asyncio.run(ask())
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda seed: editor.edit(SOURCE, "y", seed=seed), range(3)))
    assert (len(server.calls), server.most_in_flight) == (9, 2)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (dict(api_key_env="NO_SUCH_KEY_HERE"), "NO_SUCH_KEY_HERE"),
        (dict(sizes=["1024"]), "1024x1024"),
        (dict(fields={"size": "1x1"}), "size"),
        (dict(base_url="http://me:pass@x/v1"), "environment variable"),
        (dict(concurrency=0), "concurrency"),
        (dict(tries=0), "tries"),
    ],
)
def test_what_cannot_work_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        OpenAIImagesEditor(OpenAIImagesConfig(**options))


def test_an_unknown_resize_policy_offers_the_nearest() -> None:
    with pytest.raises(UnknownName, match="'aspect'"):
        OpenAIImagesEditor(OpenAIImagesConfig(resize="aspects"))


def test_the_shipped_choice_builds() -> None:
    config = load_config("demo", ["editor=openai"])
    assert isinstance(plugins.build("editors", config.editor.name, config.editor.options), OpenAIImagesEditor)
