"""A headless Chromium driven by the W3C WebDriver protocol, which is plain HTTP: no further package is needed."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.needs import program

KEYS = {"Tab": "\ue004", "Enter": "\ue007", "Escape": "\ue00c", "Shift": "\ue008", "Left": "\ue012", "Right": "\ue014"}
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key that the protocol gives elements


class Browser:
    """One tab."""

    def __init__(self, client: httpx.Client, session: str) -> None:
        self._client = client
        self._base = f"/session/{session}"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One command. Raises AssertionError with the driver's words."""
        given = None if method in ("GET", "DELETE") else body or {}
        answer = self._client.request(method, self._base + path, json=given)
        value = answer.json()["value"]
        assert answer.status_code == 200, f"{method} {path}: {value}"
        return value

    def open(self, url: str) -> None:
        # From one hash to another the document stays: what is meant is a fresh page.
        self.call("POST", "/url", {"url": "about:blank"})
        self.call("POST", "/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """The value of a script's `return`."""
        return self.call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def cdp(self, command: str, **parameters: Any) -> Any:
        """A command of Chromium's own protocol."""
        return self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def all(self, css: str) -> list[str]:
        return [e[_ELEMENT] for e in self.call("POST", "/elements", {"using": "css selector", "value": css})]

    def one(self, css: str) -> str:
        return self.until(lambda: self.all(css), css)[0]

    def click(self, css: str) -> None:
        self.call("POST", f"/element/{self.one(css)}/click")

    def text(self, css: str = "body") -> str:
        return str(self.run("return document.querySelector(arguments[0])?.innerText ?? ''", css))

    def type(self, css: str, text: str) -> None:
        self.call("POST", f"/element/{self.one(css)}/value", {"text": text})

    def press(self, *keys: str, held: str = "") -> None:
        """Keys, one after another, with one more held down all the while."""
        actions: list[dict[str, Any]] = []
        if held:
            actions.append({"type": "keyDown", "value": KEYS[held]})
        for key in keys:
            actions += [{"type": kind, "value": KEYS.get(key, key)} for kind in ("keyDown", "keyUp")]
        if held:
            actions.append({"type": "keyUp", "value": KEYS[held]})
        self.call("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def drag(self, css: str, from_share: float, to_share: float) -> None:
        """Drag over an element, from one share of its width to another."""
        box = self.run("const b = document.querySelector(arguments[0]).getBoundingClientRect(); return [b.width]", css)
        element = {_ELEMENT: self.one(css)}
        move = [
            {"type": "pointerMove", "duration": 0, "origin": element, "x": round((share - 0.5) * box[0]), "y": 0}
            for share in (from_share, (from_share + to_share) / 2, to_share)
        ]
        actions = [move[0], {"type": "pointerDown", "button": 0}, *move[1:], {"type": "pointerUp", "button": 0}]
        pointer = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": actions}
        self.call("POST", "/actions", {"actions": [pointer]})

    def role(self, css: str) -> tuple[str, str]:
        """Role and name of an element as assistive technology gets them."""
        at = f"/element/{self.one(css)}"
        return self.call("GET", f"{at}/computedrole"), self.call("GET", f"{at}/computedlabel")

    def complaints(self) -> list[str]:
        """What the console says of errors since it was last asked; violations of the policy are among it."""
        entries = self.call("POST", "/se/log", {"type": "browser"})
        return [e["message"] for e in entries if e["level"] == "SEVERE"]

    def until(self, found: Callable[[], Any], what: str = "", seconds: float = 20) -> Any:
        """The first value that is something. Raises AssertionError when it takes too long."""
        end = time.monotonic() + seconds
        while True:
            value = found()
            if value:
                return value
            if time.monotonic() > end:
                raise AssertionError(f"in vain waited for {what}; the page says:\n{self.text()[:2000]}")
            time.sleep(0.05)

    def settled(self) -> None:
        """Wait until the view has loaded all its parts."""
        ticks = "Number(document.getElementById('main').dataset.ticks) > 0"
        ready = f"return {ticks} && !document.querySelector('[aria-busy=true], .moving')"
        self.until(lambda: self.run(ready), "the view to load", seconds=90)

    def picture(self, file: Path, *, whole: bool = True) -> None:
        """A picture of the page, for people to look at."""
        shot = self.cdp("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(shot["data"]))


@contextlib.contextmanager
def chromium(width: int = 1280, height: int = 900) -> Iterator[Browser]:
    """A headless Chromium with a profile of its own; both it and its driver are gone afterwards."""
    driver, browser = program("chromedriver", "chromium-driver"), program("chromium", "chromium")
    with tempfile.TemporaryDirectory(prefix="ts-browser-", ignore_cleanup_errors=True) as profile:
        log = Path(profile) / "driver.log"
        command = [driver, "--port=0", f"--log-path={log}"]
        home = {**os.environ, "HOME": profile}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=home)
        try:
            assert process.stdout is not None
            port = next(m[1] for line in process.stdout if (m := re.search(r"on port (\d+)", line)) and m[1] != "0")
            options = {
                "binary": browser,
                "args": [
                    "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run",
                    "--disable-background-networking", f"--window-size={width},{height}",
                    f"--user-data-dir={profile}/p",
                ],
            }  # fmt: skip
            always = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
                made = client.post("/session", json={"capabilities": {"alwaysMatch": always}}).json()["value"]
                assert "sessionId" in made, made
                tab = Browser(client, made["sessionId"])
                try:
                    yield tab
                finally:
                    client.delete(f"/session/{made['sessionId']}")
        finally:
            process.terminate()
            process.wait(20)
