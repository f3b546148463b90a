"""Chromium against the real app, on a real model, in a home folder of its own."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from playground.config import Paths, ServeConfig
from playground.errors import PlaygroundError
from playground.services.sources import Sources

ROOT = Path(__file__).parent.parent.parent
SCREENSHOTS = ROOT / "assets" / "screenshots"
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


@pytest.fixture(scope="session")
def chromium():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
    given, names = os.environ.get("PLAYGROUND_CHROMIUM"), ("chromium", "chromium-browser", "google-chrome")
    path = given or next(filter(None, map(shutil.which, names)), None)
    if not path:
        pytest.skip("no Chromium on this machine; install it or set PLAYGROUND_CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def models() -> Path:
    """The folder that holds the default model; fetched once where it is not on this machine."""
    try:
        return Sources(Paths()).get(ServeConfig.model).parent
    except PlaygroundError as error:
        pytest.skip(f"the model cannot be had here: {error}")


STILL = """() => new Promise(done => {
    const began = performance.now();
    let last = began;
    const watch = new MutationObserver(() => { last = performance.now(); });
    watch.observe(document.body, {childList: true, subtree: true});
    const look = setInterval(() => {
        const now = performance.now();
        if (now - last < 200 && now - began < 5000) return;
        clearInterval(look);
        watch.disconnect();
        done();
    }, 20);
})"""


def settle(page):
    """Wait until nothing has been drawn for 0.2 s. gradio draws what a tab or an accordion holds when it opens, and a
    field that is filled before its first value was put in loses what was filled in; no person is as quick."""
    page.evaluate(STILL)


class App:
    """The app as a user starts it, on a free port."""

    def __init__(self, home: Path, **environment):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.home, self.url, self.log = home, f"http://127.0.0.1:{port}/", home / "app.log"
        home.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "PLAYGROUND_HOME": str(home), "PYTHONUNBUFFERED": "1", **environment}
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "app.py", "--port", str(port)], cwd=ROOT, env=environment, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(self.url, timeout=5).close()
                return
            assert self.process.poll() is None, f"the app ended:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"the app did not answer in two minutes:\n{self.log.read_text()}"
            time.sleep(0.2)

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="session")
def start(tmp_path_factory):
    """`start(VARIABLE=…)` starts an app of its own; in the end no log may hold a traceback."""
    apps = []

    def start(**environment) -> App:
        apps.append(App(tmp_path_factory.mktemp("home"), **environment))
        return apps[-1]

    yield start
    for app in apps:
        app.close()
    for app in apps:
        assert "Traceback" not in app.log.read_text(), app.log.read_text()[-4000:]


@pytest.fixture(scope="session")
def app(start, models) -> App:
    """The app that most tests visit."""
    return start(PLAYGROUND_MODELS=str(models))


class Visitor:
    """A page with what its browser asked for and complained about."""

    def __init__(self, browser, url: str, **context):
        self.context = browser.new_context(viewport=context.pop("viewport", {"width": 1280, "height": 900}), **context)
        self.hosts, self.complaints = set(), []
        self.page = self.context.new_page()
        self.page.set_default_timeout(float(os.environ.get("PLAYGROUND_WAIT", 60)) * 1000)
        self.page.on("request", lambda request: self.hosts.add(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda message: message.type == "error" and self.complaints.append(message.text))
        self.page.goto(url)

    def open(self, tab: str):
        self.page.get_by_role("tab", name=tab, exact=True).click()
        settle(self.page)

    def unfold(self, title: str):
        """Open the accordion of this title."""
        self.page.get_by_role("button", name=title).first.click()
        settle(self.page)

    def field(self, label: str):
        """The input of the visible component with this label."""
        title = self.page.get_by_test_id("block-info").filter(has_text=re.compile(rf"^\s*{re.escape(label)}\s*$"))
        return self.page.locator(".block:visible").filter(has=title).last.locator("input, textarea").first

    def choose(self, label: str, option: str):
        """Pick an option of the dropdown with this label."""
        self.field(label).click()
        self.page.get_by_role("option", name=option).first.click()

    def wait_for_model(self):
        self.page.locator("#model-state .ready").wait_for(timeout=120_000)

    def fits(self) -> bool:
        """Whether the page can be read without scrolling sideways."""
        return self.page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    def foreign(self) -> list[str]:
        """Requests that left this machine."""
        return sorted(url for url in self.hosts if not re.match(r"(https?://127\.0\.0\.1[:/]|data:|blob:)", url))

    def close(self):
        self.context.close()


@pytest.fixture
def visit(chromium, request):
    """`visit(viewport=…, color_scheme=…)` opens the app; in the end nothing went to another host and nothing failed."""
    visitors = []

    def visit(url: str = "", **context) -> Visitor:
        visitors.append(Visitor(chromium, url or request.getfixturevalue("app").url, **context))
        return visitors[-1]

    yield visit
    for visitor in visitors:
        visitor.close()
    assert [url for visitor in visitors for url in visitor.foreign()] == []
    assert [complaint for visitor in visitors for complaint in visitor.complaints] == []


@pytest.fixture
def picture():
    """`picture(visitor, name)` writes README's screenshot, when PLAYGROUND_SCREENSHOTS is set."""

    def picture(visitor: Visitor, name: str, height: int = 900):
        if not os.environ.get("PLAYGROUND_SCREENSHOTS"):
            return
        import io

        from PIL import Image

        visitor.page.evaluate("scrollTo(0, 0)")
        visitor.page.wait_for_timeout(400)
        shot = visitor.page.screenshot(clip={"x": 0, "y": 0, "width": 1280, "height": height}, full_page=True)
        # 256 colours: a third of the size, and no difference to the eye
        image = Image.open(io.BytesIO(shot)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        image.save(SCREENSHOTS / f"{name}.png", optimize=True)

    return picture
