"""A real browser for tests: the Chromium of this machine, driven by Playwright; and a server for it to look at."""

import os
import shutil
import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

PLACES = ("/usr/lib/chromium/chromium-headless-shell", "/usr/bin/chromium-headless-shell", "/usr/bin/chromium")
SHOTS = "PERDURE_SCREENSHOTS"
WINDOWS = {
    "desktop": {"viewport": {"width": 1200, "height": 900}, "color_scheme": "light"},
    "phone": {"viewport": {"width": 400, "height": 800}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1200, "height": 900}, "color_scheme": "dark"},
}


def find_chromium():
    """The path of an installed Chromium; None where there is none. Nothing is ever fetched."""
    named = [shutil.which(name) for name in ("chromium-headless-shell", "chromium", "chromium-browser")]
    return next((place for place in (*PLACES, *named) if place and Path(place).is_file()), None)


@contextmanager
def chromium():
    """A started browser; the test is skipped where none is installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = find_chromium()
    if path is None:
        pytest.skip("no Chromium is installed here: apt-get install chromium-headless-shell")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            yield browser
        finally:
            browser.close()


def free_port():
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return door.getsockname()[1]


@contextmanager
def listening(app, port):
    """The application answering on this machine, in a thread."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


def shoot(page, name):
    """Pictures of a page as it stands, in every window, into the folder that the environment names, if any."""
    folder = os.environ.get(SHOTS)
    if not folder:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    language = page.locator("html").get_attribute("lang")
    name = name if language == "en" else f"{language}-{name}"
    for window, look in WINDOWS.items():
        page.set_viewport_size(look["viewport"])
        page.emulate_media(color_scheme=look["color_scheme"])
        page.wait_for_timeout(150)
        page.screenshot(path=Path(folder) / f"{name}-{window}.png", full_page=True)
    page.set_viewport_size(WINDOWS["desktop"]["viewport"])
    page.emulate_media(color_scheme="light")
