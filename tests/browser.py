"""A real Chromium, spoken to over its debugging pipe: what a page says, asks for and looks like."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
COMPLAINTS = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
# Chromium reads commands from file descriptor 3 and answers on 4; what it prints itself must not come between.
LAUNCH = 'exec "$0" "$@" 3<&0 4>&1 1>&2'


@dataclass
class Page:
    """A page that was opened, and all that happened since."""

    pipe: subprocess.Popen[bytes]
    session: str = ""
    number: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self.number += 1
        command: dict[str, object] = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            command["sessionId"] = self.session
        assert self.pipe.stdin is not None
        self.pipe.stdin.write(json.dumps(command).encode() + b"\0")
        self.pipe.stdin.flush()
        while (answer := self.receive()).get("id") != self.number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def receive(self) -> dict[str, Any]:
        """The next message."""
        assert self.pipe.stdout is not None
        message = bytearray()
        while (letter := self.pipe.stdout.read(1)) != b"\0":
            assert letter, "the browser ended"
            message += letter
        return json.loads(message)

    def open(self, path: Path) -> None:
        """Open a file, and wait until it is there with all its images."""
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self.receive())

    def complaints(self) -> list[dict[str, Any]]:
        """Everything in the console: messages, errors, and what the security policy refused."""
        return [event for event in self.events if event["method"] in COMPLAINTS]

    def requests(self) -> list[str]:
        """The addresses of all that was asked for; images inside of the page are none."""
        sent = [event["params"] for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return [one["request"]["url"] for one in sent if not one["request"]["url"].startswith("data:")]

    def value(self, expression: str) -> Any:
        """What an expression is in the page."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def look(self, width: int, dark: bool) -> None:
        """Be a screen of this width, light or dark."""
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **screen)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self) -> bytes:
        """The whole page as PNG."""
        height = self.value("document.documentElement.scrollHeight")
        width = self.value("document.documentElement.clientWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(shot["data"])


def find_browser() -> str:
    """Chromium or Chrome, as CHROMIUM_PATH or PATH has it; without one the test is skipped."""
    named = os.environ.get("CHROMIUM_PATH")
    found = named or next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium: install chromium-headless-shell or chromium, or set CHROMIUM_PATH to one")
    return found


@contextmanager
def new_page() -> Iterator[Page]:
    """An empty page of a browser of its own."""
    browser = find_browser()
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ["--headless", "--remote-debugging-pipe", f"--user-data-dir={profile}", "--no-first-run"]
        options += ["--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--hide-scrollbars"]
        # Chromium's sandbox refuses to work for root, as in a container.
        options += ["--no-sandbox"] if os.geteuid() == 0 else []
        with subprocess.Popen(
            ["sh", "-c", LAUNCH, browser, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as pipe:
            page = Page(pipe)
            target = page.call("Target.createTarget", url="about:blank")["targetId"]
            page.session = page.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                page.call(f"{domain}.enable")
            yield page
            page.session = ""
            page.call("Browser.close")
