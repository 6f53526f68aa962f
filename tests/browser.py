"""A real headless Chromium for tests, driven over its DevTools protocol."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from websockets.sync.client import connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WHY_NOT = f"no browser installed: the page is tested in one of {', '.join(NAMES)}"
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
PATIENCE_S = 120.0  # other work may share the machine


def installed() -> str | None:
    """The path of a browser, if there is one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One browser with one page at a time, each as if nobody had been there before.

    `faults` holds what the page's console complained of.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self._numbers = itertools.count(1)
        self._session: str | None = None
        self._context: str | None = None
        self._held = ExitStack()

    def __enter__(self) -> Self:
        path = installed()
        assert path is not None, WHY_NOT
        with ExitStack() as held:  # so that a browser that doesn't start is not left behind
            profile = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
            folder = held.enter_context(profile)
            self.downloads = Path(folder) / "downloads"
            own = (f"--user-data-dir={folder}", "--remote-debugging-port=0")
            process = subprocess.Popen([path, *FLAGS, *own], stderr=subprocess.DEVNULL)
            held.callback(process.wait)
            held.callback(process.kill)
            told, until = Path(folder, "DevToolsActivePort"), time.monotonic() + PATIENCE_S
            while not (told.is_file() and len(lines := told.read_text().splitlines()) == 2):
                assert process.poll() is None, "the browser ended"
                assert time.monotonic() < until, "the browser did not start"
                time.sleep(0.05)
            address = f"ws://127.0.0.1:{lines[0]}{lines[1]}"
            self._socket = held.enter_context(connect(address, max_size=2**28, proxy=None, open_timeout=60))
            self._held = held.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def page(self, width: int = 1280, height: int = 900) -> Self:
        """Leave the page there was, with all that it stored, for a new one."""
        if self._context is not None:
            self._session = None
            self.call("Target.disposeBrowserContext", browserContextId=self._context)
        self._context = self.call("Target.createBrowserContext")["browserContextId"]
        context = {"browserContextId": self._context}
        target = self.call("Target.createTarget", url="about:blank", **context)["targetId"]
        allow = {"behavior": "allow", "downloadPath": str(self.downloads)}
        self.call("Browser.setDownloadBehavior", **allow, **context)
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM"):
            self.call(f"{domain}.enable")
        self.resize(width, height)
        self.faults.clear()
        return self

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the protocol."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        while True:
            answer = json.loads(self._socket.recv(timeout=PATIENCE_S))
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return dict(answer["result"])
            self._note(answer)

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.faults.append(str(params["exceptionDetails"].get("exception", {}).get("description")))
        elif event.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.faults.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete'")

    def js(self, expression: str) -> Any:
        """The value of an expression on the page."""
        how = {"awaitPromise": True, "returnByValue": True}
        answer = self.call("Runtime.evaluate", expression=expression, **how)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def text(self, selector: str) -> str:
        """What a person can read there."""
        return str(self.js(f"document.querySelector({json.dumps(selector)}).innerText"))

    def wait_for(self, expression: str) -> None:
        """Until the expression is true; on a page that is still loading it may raise."""
        attempt = f"(() => {{ try {{ return Boolean({expression}); }} catch {{ return false; }} }})()"
        until = time.monotonic() + PATIENCE_S
        while not self.js(attempt):
            shown = self.js("document.body?.innerText")
            assert time.monotonic() < until, f"never true: {expression}. {self.faults} The page: {shown}"
            time.sleep(0.05)

    def click(self, selector: str) -> None:
        """With the mouse, where a person would see it."""
        box = self.js(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: "
            "'center'}); const r = e.getBoundingClientRect(); "
            "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def type(self, selector: str, text: str) -> None:
        """Instead of what stands there."""
        self.js(f"(e => {{ e.focus(); e.select(); }})(document.querySelector({json.dumps(selector)}))")
        self.call("Input.insertText", text=text)

    def upload(self, selector: str, path: Path) -> None:
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def screenshot(self, path: Path) -> None:
        data = self.call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))
