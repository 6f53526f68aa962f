"""The studio in a real browser, served by the command as a user starts it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import browser
import pytest
from browser import PATIENCE_S, Browser
from chat_server import ChatServer, Hangs, Says
from PIL import Image
from plain import reply

from thinkedit.envs.world.tasks import WorldTasks

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(browser.installed() is None, reason=browser.WHY_NOT),
]

TASK = WorldTasks().task("test", 7)
DONE = "document.querySelector('#status').matches('.done, .bad')"


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "shapes.png"
    Image.fromarray(TASK.source).save(path)
    return path


@contextmanager
def served(*options: str, **environment: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    process = subprocess.Popen(
        [sys.executable, "-c", "from thinkedit.cli import app; app()", "studio", "--port", "0", *options],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("open http://127.0.0.1:"), line
        yield line.removeprefix("open ").strip(), process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def _browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture
def page(_browser: Browser) -> Browser:
    return _browser.page()


@pytest.fixture(scope="module")
def studio() -> Iterator[str]:
    """The address of one whose thinker is the world's expert."""
    with served("--thinker", "naive_expert") as (url, _):
        yield url


def visit(page: Browser, url: str) -> None:
    page.open(url)
    page.wait_for("document.querySelector('#who').innerText")


def begin(page: Browser, picture: Path, instruction: str = TASK.instruction) -> None:
    page.upload("#file", picture)
    page.type("#instruction", instruction)
    page.click("#edit")


def test_upload_instruct_watch_download(page: Browser, studio: str, picture: Path) -> None:
    visit(page, studio)
    page.click("summary")
    page.type("#turns", "4")
    page.js("document.querySelector('#select').value = 'best_judge'")
    begin(page, picture)
    page.wait_for(DONE)
    assert page.text("#status") == "The thinker is satisfied. Edit 3 is the result."
    assert page.js("document.querySelectorAll('.card').length") == 4
    first = page.text(".card")
    assert TASK.instruction in first
    assert "edit: wrong" in first
    assert "judge: semantic" in first
    assert "thinker: quality" in first
    assert page.text(".card:last-child .chip") == "satisfied · result"
    # the pictures are really shown, side by side
    both = "['#source', '#shown'].map(s => document.querySelector(s))"
    assert page.js(f"{both}.map(e => e.naturalWidth)") == [96, 96]
    assert len(set(page.js(f"{both}.map(e => e.getBoundingClientRect().top)"))) == 1
    # a click on an earlier edit shows that one
    page.click(".card .look")
    assert page.text("#shown-name") == "Edit 0"
    page.click("#downloads button")
    saved, until = page.downloads / "thinkedit-result.png", time.monotonic() + PATIENCE_S
    while not saved.is_file():
        assert time.monotonic() < until, "the result was not downloaded"
        time.sleep(0.05)
    with Image.open(saved) as result:
        assert result.size == (96, 96)
    assert page.faults == []


def test_a_reload_shows_the_run_again(page: Browser, studio: str, picture: Path) -> None:
    visit(page, studio)
    begin(page, picture)
    page.wait_for(DONE)
    before = page.text("#turns-list")
    page.js("window.old = true")
    page.call("Page.reload")
    page.wait_for("!window.old && document.readyState === 'complete' && " + DONE)
    assert page.text("#turns-list") == before
    assert page.js("document.querySelector('#instruction').value") == TASK.instruction


def test_failures_are_told(page: Browser, studio: str, tmp_path: Path) -> None:
    photograph = tmp_path / "noise.png"
    Image.effect_noise((96, 96), 80).convert("RGB").save(photograph)
    visit(page, studio)
    page.click("#edit")
    assert page.text("#problem") == "Choose a picture first."
    begin(page, photograph)
    page.wait_for(DONE)
    assert "pictures of the world only" in page.text("#status")
    assert "bad" in page.js("document.querySelector('#status').className")


def test_a_thinker_that_cant_be_read_is_told(page: Browser, picture: Path) -> None:
    with ChatServer() as thinker:
        thinker.answers["sc"] = [Says("looks fine to me")]
        with served("inference.tries=1", "--thinker", thinker.base_url) as (url, _):
            visit(page, url)
            begin(page, picture)
            page.wait_for(DONE)
            told = page.text("#status")
            assert told.startswith("The thinker can't be read: no reply of 1"), told
            assert told.endswith("Edit 0 is the result.")
            assert "bad" in page.js("document.querySelector('#status').className")
            # It was told what is wanted, and was given no key that is another's.
            assert "<score>" in str(thinker.calls[0].body)


def test_stop(page: Browser, picture: Path, tmp_path: Path) -> None:
    with ChatServer() as thinker:
        thinker.answers["sc"] = [Says(reply("swap the orange triangle for an orange star", 2, 3)), Hangs()]
        with served("--thinker", thinker.base_url, TMPDIR=str(tmp_path)) as (url, process):
            visit(page, url)
            begin(page, picture)
            page.wait_for("document.querySelectorAll('.card').length === 2")
            page.wait_for("document.querySelector('#status').innerText === 'Thinking'")
            assert "dull" in page.text(".card")
            page.click("#stop")
            page.wait_for(DONE)
            assert page.text("#status") == "Stopped. Edit 1 is the result."
            assert page.js("document.querySelector('#stop').hidden")
            # the studio ends when told to, though a page is open, and leaves no pictures behind
            assert list(tmp_path.glob("thinkedit-*/*/edit_1.png"))
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=PATIENCE_S) == 0
            assert not list(tmp_path.glob("thinkedit-*"))


def test_a_token_is_asked_for_until_it_is_right(page: Browser, picture: Path) -> None:
    token = "thirty-two-characters-of-secrecy"
    with served("--thinker", "naive_expert", THINKEDIT_TOKEN=token) as (url, _):
        page.open(url)
        for given in ("wrong", token):
            page.wait_for("document.querySelector('#token-dialog').open")
            page.type("#token", given)
            page.click("#token-dialog button")
        page.wait_for("document.querySelector('#who').innerText")
        begin(page, picture)
        page.wait_for(DONE)
        assert page.js("document.querySelector('#shown').naturalWidth") == 96
        assert page.js(f"!document.documentElement.outerHTML.includes({json.dumps(token)})")
