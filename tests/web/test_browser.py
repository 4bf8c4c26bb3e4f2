"""The page in a real browser; the screenshots of the documentation are made here."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from loaderd_client import Session
from tests.support.daemons import eventually
from tests.support.page import LivePage
from tests.support.streams import a_spec

_BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
_DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    _BROWSER is None or _DRIVER is None,
    reason="no browser: apt-get install chromium chromium-driver",
)

Browser = webdriver.Chrome


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with a_browser() as one:
        yield one


def a_browser(*flags: str) -> Browser:
    options = Options()
    options.binary_location = _BROWSER or ""
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    usual = ["--headless=new", "--window-size=1000,1500", "--disable-dev-shm-usage"]
    for flag in (*usual, *sandbox, *flags):
        options.add_argument(flag)
    return webdriver.Chrome(options, Service(_DRIVER))


class Trainer(threading.Thread):
    """Takes batches, each after a pause, which may be changed."""

    def __init__(self, page: LivePage, photos: Path) -> None:
        super().__init__()
        self.pause = 0.02
        self.ends = False
        self._page = page
        self._photos = photos

    def run(self) -> None:
        with Session(self._page.daemon.path) as session:
            stream = session.open(a_spec(self._photos), slots=6)
            number = 0
            while not self.ends:
                stream.take(divmod(number, stream.batches))
                number += 1
                time.sleep(self.pause)


@pytest.fixture
def trainer(page: LivePage, photos: Path) -> Iterator[Trainer]:
    one = Trainer(page, photos)
    one.start()
    yield one
    one.ends = True
    one.join()


def text(browser: Browser, selector: str) -> str:
    """The text of an element; empty while it is not there."""
    found = browser.execute_script(
        "return document.querySelector(arguments[0])?.textContent ?? ''", selector
    )
    return str(found)


def opened(browser: Browser, page: LivePage) -> Browser:
    browser.get(page.url)
    eventually(lambda: str(page.daemon.process.pid) in text(browser, "#about"))
    return browser


def test_the_page_opens_with_the_token_alone(page: LivePage, browser: Browser) -> None:
    browser.delete_all_cookies()
    browser.get(f"http://localhost:{page.port}/")
    assert "401" in text(browser, "body")
    opened(browser, page)
    assert "token" not in browser.current_url
    assert browser.execute_script("return document.cookie") == ""


def test_it_asks_no_other_host_for_anything(
    page: LivePage, browser: Browser, trainer: Trainer
) -> None:
    opened(browser, page)
    names = browser.execute_script("return performance.getEntries().map((one) => one.name)")
    addresses = [name for name in names if "://" in name]
    assert addresses
    assert all(one.startswith(f"http://localhost:{page.port}/") for one in addresses)
    told = browser.get_log("browser")
    assert not [one for one in told if f":{page.port}/" in one["message"]]


def test_charts_move_and_figures_are_those_of_the_command(
    page: LivePage, browser: Browser, trainer: Trainer
) -> None:
    opened(browser, page)

    def dots() -> list[str]:
        found = browser.execute_script(
            "return [...document.querySelectorAll('article polyline')].map("
            "(one) => one.getAttribute('points'))"
        )
        return [str(one) for one in found]

    eventually(lambda: bool(dots()))
    before = dots()
    eventually(lambda: dots() != before)
    shown = page.daemon.snapshot().streams[0]
    assert text(browser, "article h3") == f"{shown.id}: {shown.directory}"

    def is_the_same() -> bool:
        told = page.get("/api/report").json
        here = browser.execute_script("return document.body.dataset.time")
        return str(told["time"]) == here and all(
            words in text(browser, "article")
            for words in (
                f"{told['streams'][0]['ready']} of {told['streams'][0]['slots']} batches",
                f"Images/s: {told['streams'][0]['images_per_s']:.1f}",
            )
        )

    eventually(is_the_same)


def test_a_starved_trainer_turns_the_verdict(
    page: LivePage, browser: Browser, trainer: Trainer
) -> None:
    trainer.pause = 0.3
    opened(browser, page)
    eventually(lambda: "NOT input-bound" in text(browser, "#verdict"))
    trainer.pause = 0.0  # faster than any loader
    eventually(lambda: "HIGHLY input-bound" in text(browser, "#verdict"))


def test_the_next_samples_are_drawn(page: LivePage, browser: Browser, trainer: Trainer) -> None:
    opened(browser, page)
    eventually(lambda: text(browser, "article button") != "")
    browser.find_element(By.CSS_SELECTOR, "article button").click()
    width = "return document.querySelector('article img')?.naturalWidth ?? 0"
    eventually(lambda: int(browser.execute_script(width)) > 0)


def test_the_keyboard_reaches_everything_and_confirms(page: LivePage, browser: Browser) -> None:
    opened(browser, page)
    reached: set[str] = set()
    for _ in range(20):
        active = browser.switch_to.active_element
        active.send_keys(Keys.TAB)
        reached.add(
            browser.execute_script("const e = document.activeElement; return e.id || e.textContent")
        )
        if "clear-caches" in reached:
            break
    assert {"worker-count", "Set …", "clear-caches", "Skip to the figures"} <= reached
    count = browser.find_element(By.ID, "worker-count")
    count.clear()
    count.send_keys("2", Keys.ENTER)
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert page.daemon.snapshot().workers_wanted == 1
    count.send_keys(Keys.ENTER)
    browser.switch_to.active_element.send_keys(Keys.TAB)
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    eventually(lambda: page.daemon.snapshot().workers_wanted == 2)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_the_contrast_of_wcag_aa(
    page: LivePage, trainer: Trainer, scheme: str
) -> None:
    flags = ["--blink-settings=preferredColorScheme=" + ("1" if scheme == "light" else "0")]
    with a_browser(*flags) as browser:
        opened(browser, page)
        eventually(lambda: text(browser, "article figcaption") != "")
        assert browser.execute_script(_IS_DARK) == (scheme == "dark")
        poor = [one for one in browser.execute_script(_CONTRASTS) if one["ratio"] < 4.5]
        assert not poor


_ACTIVE = "const one = document.activeElement; return one.id || one.textContent"
_IS_DARK = "return matchMedia('(prefers-color-scheme: dark)').matches"
_CONTRASTS = """
const luminance = ([r, g, b]) => {
  const [x, y, z] = [r, g, b].map((byte) => byte / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
};
const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
const behind = (element) => {
  for (let one = element; one; one = one.parentElement) {
    const color = numbers(getComputedStyle(one).backgroundColor);
    if (color.length < 4 || color[3] > 0) return color;
  }
  return [255, 255, 255];
};
const found = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some((one) => one.nodeType === 3 && one.textContent.trim());
  if (!own || !element.getClientRects().length) continue;
  const colors = [numbers(getComputedStyle(element).color), behind(element)];
  const [one, other] = colors.map(luminance).sort((a, b) => b - a);
  found.push({ text: element.textContent.slice(0, 40), ratio: (one + 0.05) / (other + 0.05) });
}
return found;
"""


def test_names_of_files_are_shown_as_text(page: LivePage, browser: Browser, tmp_path: Path) -> None:
    evil = "<img src=x onerror=document.title='owned'>"
    folder = tmp_path / evil / "cat"
    folder.mkdir(parents=True)
    (folder / f"{evil}.jpg").write_bytes(b"no image")
    with Session(page.daemon.path) as session:
        stream = session.open(a_spec(tmp_path / evil), slots=2)
        opened(browser, page)
        eventually(lambda: evil in text(browser, "article h3"))
        with pytest.raises(OSError):
            stream.take((0, 0))
        eventually(lambda: evil in text(browser, "#bad"))
    assert browser.title == "loaderd"
    assert not browser.find_elements(By.CSS_SELECTOR, "img[src=x]")


def test_screenshots_of_the_documentation(
    page: LivePage, browser: Browser, trainer: Trainer, tmp_path: Path
) -> None:
    """Written to where LOADERD_SCREENSHOTS says, else only tried."""
    folder = Path(_SCREENSHOTS) if _SCREENSHOTS else tmp_path
    trainer.pause = 0.05
    opened(browser, page)
    eventually(lambda: _points(browser) >= 5)
    assert browser.save_screenshot(str(folder / "live-page.png"))


_SCREENSHOTS = os.environ.get("LOADERD_SCREENSHOTS", "")


def _points(browser: Browser) -> int:
    lengths: Any = browser.execute_script(
        "return document.querySelector('article polyline')?.points.length ?? 0"
    )
    return int(lengths)
