"""The cache of edits and verdicts: one call per question, no stale or half-written answers."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thinkedit.envs.editors.base import Editor, EditRequest
from thinkedit.envs.editors.cache import CachedEditor, CachedJudge
from thinkedit.envs.editors.procedural import ProceduralEditor
from thinkedit.envs.world import Item, Scene, render
from thinkedit.envs.world.judge import WorldJudge
from thinkedit.errors import EditorError, JudgeError
from thinkedit.testing import EditorContract
from thinkedit.types import RGB, Scores, Verdict

SOURCE = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


class Counting(Editor):
    """Inverts the picture, slowly, and counts; fails when the prompt says so."""

    name = "counting"

    def __init__(self, *, revision: str = "1", strength: int = 1, pause_s: float = 0.0) -> None:
        self.revision, self.strength, self.pause_s = revision, strength, pause_s
        self.calls, self.batches = 0, 0
        self._lock = threading.Lock()

    def settings(self) -> Mapping[str, Any]:
        return {"strength": self.strength}

    def edit(self, source: RGB, prompt: str, *, seed: int) -> RGB:
        with self._lock:
            self.calls += 1
        time.sleep(self.pause_s)
        if prompt == "fail":
            raise EditorError("told to fail")
        if prompt == "shrink":
            return source[:1]
        if prompt == "blacken":
            return np.zeros_like(source)
        return (255 - source) ^ np.uint8(seed)

    async def edit_many(self, requests: Sequence[EditRequest]) -> list[RGB | Exception]:
        self.batches += 1
        return await super().edit_many(requests)


@pytest.fixture(params=["memory", "disk"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "cache" if request.param == "disk" else None


class TestCachedProceduralEditor(EditorContract):
    def make(self) -> Editor:
        return CachedEditor(ProceduralEditor())

    def source(self) -> RGB:
        return render(Scene((Item(0, "big", "red", "star"), Item(4, "small", "blue", "square"))))


def test_the_same_edit_is_made_once(directory: Path | None) -> None:
    inner = Counting()
    editor = CachedEditor(inner, directory)
    first = editor.edit(SOURCE, "go", seed=1)
    assert np.array_equal(editor.edit(SOURCE, "go", seed=1), first)
    assert (inner.calls, editor.stats.hits, editor.stats.misses) == (1, 1, 1)


def test_every_part_of_the_key_counts(directory: Path | None) -> None:
    inner = Counting()
    editor = CachedEditor(inner, directory)
    other = SOURCE.copy()
    other[0, 0, 0] ^= 1
    for source, prompt, seed in [
        (SOURCE, "go", 1),
        (SOURCE, "go", 2),
        (SOURCE, "go ", 1),
        (other, "go", 1),
        (SOURCE.reshape(5, 4, 3), "go", 1),
    ]:
        editor.edit(source, prompt, seed=seed)
    assert inner.calls == 5


@pytest.mark.parametrize("other", [Counting(revision="2"), Counting(strength=2)])
def test_another_revision_or_setting_shares_nothing_on_disk(tmp_path: Path, other: Counting) -> None:
    CachedEditor(Counting(), tmp_path).edit(SOURCE, "go", seed=1)
    CachedEditor(other, tmp_path).edit(SOURCE, "go", seed=1)
    assert other.calls == 1


def test_a_new_process_finds_the_edits_of_the_old_one(tmp_path: Path) -> None:
    made = CachedEditor(Counting(), tmp_path).edit(SOURCE, "go", seed=1)
    inner = Counting()
    editor = CachedEditor(inner, tmp_path)
    assert np.array_equal(editor.edit(SOURCE, "go", seed=1), made)
    assert inner.calls == 0
    assert editor.stats.hits == 1


def flipped(data: bytes) -> bytes:
    place = data.index(b"IDAT") + 12
    return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda _: b"not a png",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-40],
        flipped,
    ],
)
def test_a_damaged_file_is_a_miss_and_is_replaced(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    made = CachedEditor(Counting(), tmp_path).edit(SOURCE, "go", seed=1)
    [path] = tmp_path.rglob("*.png")
    path.write_bytes(damage(path.read_bytes()))
    inner = Counting()
    editor = CachedEditor(inner, tmp_path)
    assert np.array_equal(editor.edit(SOURCE, "go", seed=1), made)
    assert (inner.calls, editor.stats.corrupt, editor.stats.misses) == (1, 1, 1)
    assert np.array_equal(CachedEditor(Counting(), tmp_path).edit(SOURCE, "go", seed=1), made)


def test_nothing_half_written_is_left_behind(tmp_path: Path) -> None:
    editor = CachedEditor(Counting(), tmp_path)
    for seed in range(5):
        editor.edit(SOURCE, "go", seed=seed)
    assert len(list(tmp_path.rglob("*.png"))) == 5
    assert not list(tmp_path.rglob("*.partial"))


def test_threads_that_ask_at_once_share_one_call(directory: Path | None) -> None:
    inner = Counting(pause_s=0.05)
    editor = CachedEditor(inner, directory)
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(lambda _: editor.edit(SOURCE, "go", seed=1), range(8)))
    assert inner.calls == 1
    assert all(np.array_equal(image, images[0]) for image in images)
    assert editor.stats.misses + editor.stats.joined + editor.stats.hits == 8


async def test_tasks_that_ask_at_once_share_one_call(directory: Path | None) -> None:
    inner = Counting(pause_s=0.05)
    editor = CachedEditor(inner, directory)
    images = await asyncio.gather(*(editor.edit_async(SOURCE, "go", seed=1) for _ in range(8)))
    assert inner.calls == 1
    images[0][:] = 0
    assert images[1].any(), "each caller owns its image"


async def test_when_the_caller_who_makes_it_is_cancelled_another_takes_over(directory: Path | None) -> None:
    inner = Counting(pause_s=0.1)
    editor = CachedEditor(inner, directory)
    first = asyncio.create_task(editor.edit_async(SOURCE, "go", seed=1))
    second = asyncio.create_task(editor.edit_async(SOURCE, "go", seed=1))
    batch = asyncio.create_task(editor.edit_many([EditRequest(SOURCE, "go", 1)]))
    await asyncio.sleep(0.05)
    first.cancel()
    image = await second
    assert image.shape == SOURCE.shape
    assert np.array_equal((await batch)[0], image)  # type: ignore[arg-type]
    assert inner.calls == 2


async def test_a_waiter_that_gives_up_leaves_the_call_to_the_others() -> None:
    inner = Counting(pause_s=0.1)
    editor = CachedEditor(inner)
    first = asyncio.create_task(editor.edit_async(SOURCE, "go", seed=1))
    await asyncio.sleep(0.02)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(editor.edit_async(SOURCE, "go", seed=1), 0.02)
    assert (await first).shape == SOURCE.shape
    assert inner.calls == 1


async def test_an_error_reaches_everyone_who_waits_and_is_not_kept(directory: Path | None) -> None:
    inner = Counting(pause_s=0.05)
    editor = CachedEditor(inner, directory)
    calls = (editor.edit_async(SOURCE, "fail", seed=1) for _ in range(3))
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, EditorError) for result in results)
    assert inner.calls == 1
    with pytest.raises(EditorError):
        editor.edit(SOURCE, "fail", seed=1)
    assert inner.calls == 2


async def test_a_batch_asks_the_editor_once_for_what_is_missing(directory: Path | None) -> None:
    inner = Counting()
    editor = CachedEditor(inner, directory)
    known = editor.edit(SOURCE, "go", seed=1)
    prompts = ["go", "on", "fail", "on", "shrink"]
    results = await editor.edit_many([EditRequest(SOURCE, prompt, 1) for prompt in prompts])
    assert np.array_equal(results[0], known)  # type: ignore[arg-type]
    assert np.array_equal(results[1], results[3])  # type: ignore[arg-type]
    assert isinstance(results[2], EditorError)
    assert isinstance(results[4], EditorError)
    assert (inner.batches, inner.calls) == (1, 4)


async def test_equal_edits_of_a_batch_share_a_failure_too(directory: Path | None) -> None:
    class Once(Counting):
        def edit(self, source: RGB, prompt: str, *, seed: int) -> RGB:
            return super().edit(source, "fail" if self.calls == 0 else prompt, seed=seed)

    inner = Once()
    editor = CachedEditor(inner, directory)
    results = await editor.edit_many([EditRequest(SOURCE, "go", 1)] * 3)
    assert [type(result) for result in results] == [EditorError] * 3
    assert (inner.calls, editor.stats.joined) == (1, 2)


async def test_two_batches_that_cross_do_not_wait_for_ever() -> None:
    editor = CachedEditor(Counting(pause_s=0.01))
    requests = [EditRequest(SOURCE, "go", seed) for seed in range(6)]
    both = asyncio.gather(editor.edit_many(requests), editor.edit_many(requests[::-1]))
    forward, backward = await asyncio.wait_for(both, 10)
    assert all(np.array_equal(a, b) for a, b in zip(forward, backward[::-1], strict=True))  # type: ignore[arg-type]


@pytest.mark.parametrize(("prompt", "says"), [("shrink", "returned shape"), ("blacken", "of one colour")])
def test_what_is_no_edit_is_an_error_and_is_not_kept(directory: Path | None, prompt: str, says: str) -> None:
    inner = Counting()
    editor = CachedEditor(inner, directory)
    for _ in range(2):
        with pytest.raises(EditorError, match=says):
            editor.edit(SOURCE, prompt, seed=1)
    assert inner.calls == 2


def test_an_editor_that_rolls_dice_is_kept_per_seed_and_says_so(
    directory: Path | None, caplog: pytest.LogCaptureFixture
) -> None:
    class Dice(Counting):
        deterministic = False

        def edit(self, source: RGB, prompt: str, *, seed: int) -> RGB:
            return super().edit(source, prompt, seed=seed) ^ np.uint8(self.calls)

    caplog.set_level(logging.INFO)
    inner = Dice()
    editor = CachedEditor(inner, directory)
    assert not editor.deterministic
    assert "'counting' is not deterministic: its first edit for each seed is kept" in caplog.text
    first, other = editor.edit(SOURCE, "go", seed=1), editor.edit(SOURCE, "go", seed=4)
    assert not np.array_equal(first, other)
    assert np.array_equal(editor.edit(SOURCE, "go", seed=1), first)
    assert inner.calls == 2


def test_memory_keeps_the_images_used_last() -> None:
    inner = Counting()
    editor = CachedEditor(inner, memory_bytes=2 * SOURCE.nbytes)
    for seed in (1, 2, 1, 3):
        editor.edit(SOURCE, "go", seed=seed)
    assert inner.calls == 3
    editor.edit(SOURCE, "go", seed=1)
    assert inner.calls == 3
    editor.edit(SOURCE, "go", seed=2)
    assert inner.calls == 4


class CountingJudge(WorldJudge):
    inline = False

    def __init__(self, **changes: Any) -> None:
        super().__init__()
        self.calls, self._changes = 0, changes

    def judge(self, source: RGB, edited: RGB, instruction: str) -> Verdict:
        self.calls += 1
        return replace(super().judge(source, edited, instruction), **self._changes)


async def test_a_verdict_is_asked_for_once_and_comes_back_whole(directory: Path | None) -> None:
    star, disc = Item(0, "big", "red", "star"), Item(4, "small", "blue", "circle", smudged=True)
    source, edited = render(Scene((star,))), render(Scene((star, disc)))
    inner = CountingJudge()
    judge = CachedJudge(inner, directory)
    made = judge.judge(source, edited, "draw a blue circle at centre")
    assert await judge.judge_async(source, edited, "draw a blue circle at centre") == made
    judge.judge(source, edited, "draw a blue star at centre")
    judge.judge(edited, edited, "erase the red star")
    assert inner.calls == 3
    if directory:
        later = CountingJudge()
        assert CachedJudge(later, directory).judge(source, edited, "draw a blue circle at centre") == made
        assert later.calls == 0


STAR = render(Scene((Item(0, "big", "red", "star"),)))


@pytest.mark.parametrize(
    ("changes", "instruction"),
    [
        ({}, "sing"),
        ({"scores": Scores(11.0, 5.0)}, "erase the red star"),
        ({"scores": Scores(float("nan"), 5.0)}, "erase the red star"),
    ],
)
def test_what_is_no_verdict_is_an_error_and_is_not_kept(
    directory: Path | None, changes: dict[str, Any], instruction: str
) -> None:
    inner = CountingJudge(**changes)
    judge = CachedJudge(inner, directory)
    for _ in range(2):
        with pytest.raises(JudgeError):
            judge.judge(STAR, STAR, instruction)
    assert inner.calls == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data.replace(b'"semantic": 0', b'"semantic": 9'),
        lambda data: data.replace(b'"notes"', b'"nodes"'),
        lambda _: b"[]",
    ],
)
def test_a_damaged_verdict_is_a_miss_and_is_replaced(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    made = CachedJudge(CountingJudge(), tmp_path).judge(STAR, STAR, "erase the red star")
    [path] = tmp_path.rglob("*.json")
    good = path.read_bytes()
    assert damage(good) != good
    path.write_bytes(damage(good))
    judge = CachedJudge(CountingJudge(), tmp_path)
    assert judge.judge(STAR, STAR, "erase the red star") == made
    assert (judge.stats.misses, judge.stats.corrupt) == (1, 1)
    assert path.read_bytes() == good


def test_a_verdict_weighs_what_its_replies_weigh() -> None:
    inner = CountingJudge(notes={"replies": ["x" * 1000]})
    judge = CachedJudge(inner, memory_bytes=3000)
    for instruction in ("erase the red star", "paint the red star blue", "erase the red star"):
        judge.judge(STAR, STAR, instruction)
    assert inner.calls == 2
    judge.judge(STAR, STAR, "paint the red star green")
    judge.judge(STAR, STAR, "paint the red star blue")
    assert inner.calls == 4, "the third pushed out the one used least lately"


async def test_notes_that_no_file_can_hold_are_told_and_hold_up_nobody(directory: Path | None) -> None:
    judge = CachedJudge(CountingJudge(notes={"marks": np.zeros(2)}), directory)
    asked = (judge.judge_async(STAR, STAR, "erase the red star") for _ in range(3))
    errors = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 20)
    assert {type(error) for error in errors} == {TypeError}
