"""The viewer in a real browser, as a person uses it: by keyboard and mouse."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.view.templates import render
from tests.support.browser import HOSTILE
from tests.support.devtools import Tab, browser
from tests.support.report_runs import stored_run, unreadable
from tests.support.small_run import command

pytestmark = pytest.mark.server

STYLE = Path(__file__).parents[3] / "pipeline/view/style.css"

CHANGES = {(0, "hdm"): {"probability": 0.9}, (1, "hdm"): {"probability": 0.8}, **unreadable(2)}

# Accessibility rules that a script can check: what has no name, no label, no landmark, two of one id.
RULES = """(() => {
  const found = [], all = (s) => [...document.querySelectorAll(s)];
  all("img").forEach(i => { if (!i.hasAttribute("alt")) found.push("no alt: " + i.src); });
  all("input:not([type=hidden]), select").forEach(i => {
    if (!i.labels.length && !i.ariaLabel) found.push("no label: " + i.name); });
  all("a, button").forEach(i => { if (!i.textContent.trim() && !i.querySelector("img[alt]")) found.push("no name: " + i.outerHTML); });
  all("fieldset").forEach(i => { if (!i.querySelector("legend")?.textContent.trim()) found.push("no legend"); });
  all("nav, aside").forEach(i => { if (!i.ariaLabel) found.push("a landmark without a name: " + i.outerHTML.slice(0, 60)); });
  all("[aria-labelledby], [aria-describedby]").forEach(i => {
    const id = i.getAttribute("aria-labelledby") || i.getAttribute("aria-describedby");
    if (!document.getElementById(id)) found.push("no such id: " + id); });
  const levels = all("h1, h2, h3").map(i => Number(i.tagName[1]));
  if (levels.some((level, n) => n && level > levels[n - 1] + 1)) found.push("a heading is skipped");
  if (document.documentElement.scrollWidth > innerWidth) found.push("the page is wider than the window");
  all("svg[role=img]").forEach(i => { if (!i.ariaLabel) found.push("no name: svg"); });
  for (const [selector, count] of [["main", 1], ["h1", 1], ["header", 1]])
    if (all(selector).length !== count) found.push(selector);
  const ids = all("[id]").map(i => i.id);
  if (new Set(ids).size !== ids.length) found.push("two of one id");
  if (!document.documentElement.lang || !document.title) found.push("no language or title");
  return found.join("; "); })()"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The command on a run, ended by Ctrl-C."""
    folder = tmp_path_factory.mktemp("view")
    store = stored_run(folder, images=5, changes=CHANGES, names={4: HOSTILE})
    arguments = command("view", store.url, "--no-open")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{43}", url), process.stderr and process.stderr.read()
        yield url
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert "Traceback" not in errors


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def test_a_visit_by_keyboard_from_the_grid_to_an_image_and_back(served: str, tab: Tab) -> None:
    tab.open(served)
    tab.wait("document.body.dataset.page == 'grid' && document.readyState == 'complete'")
    assert "token" not in tab.run("location.href")
    assert tab.run("document.querySelectorAll('.tile').length") == 5
    assert HOSTILE in tab.run("document.querySelector('main').innerText")
    assert tab.run(RULES) == ""
    tab.press("/")
    assert tab.run("document.activeElement.id") == "where"
    tab.send("Input.insertText", text="probability > 0.7")
    tab.press("Enter")
    tab.wait("location.search.includes('where') && document.readyState == 'complete' && document.querySelectorAll('.tile').length == 2")
    tab.press("j", "j")
    assert tab.run("document.activeElement.id") == "row-1"
    assert tab.run("(s => s.outlineStyle + ' ' + s.outlineWidth)(getComputedStyle(document.activeElement))") == "solid 3px"
    tab.press("Enter")
    tab.wait("document.body.dataset.page == 'detail' && document.readyState == 'complete'")
    assert tab.run("document.querySelector('h1').innerText") == "bird-1"
    assert tab.run(RULES) == ""
    tab.press("k")
    tab.wait("document.querySelector('h1').innerText == 'bird-0' && document.readyState == 'complete'")
    tab.press("u")
    tab.wait("document.body.dataset.page == 'grid' && document.readyState == 'complete' && document.activeElement.id == 'row-0'")
    assert tab.run("document.getElementById('where').value") == "probability > 0.7"
    tab.press("?")
    assert tab.run("document.getElementById('help').open") is True
    tab.press("Escape")
    tab.wait("!document.getElementById('help').open")
    tab.press("t")
    tab.wait("document.documentElement.dataset.theme == 'dark'")
    assert tab.problems == []


def test_sliders_brush_and_similar_maps_by_mouse(served: str, tab: Tab) -> None:
    home = served.partition("?")[0]
    tab.open(served)
    tab.wait("document.querySelector('.histogram') && document.readyState == 'complete'")
    tab.drag(".histogram svg", 0.5, 1.0)
    tab.wait("location.search.includes('min_probability') && document.querySelectorAll('.tile').length == 2")
    tab.open(f"{home}image/0?method=hdm&at=0")
    tab.wait("document.readyState == 'complete'")
    slide = (
        "(() => {{ const s = document.getElementById('{0}'); s.value = {1}; s.dispatchEvent(new Event('input', {{bubbles: true}})); }})()"
    )
    tab.run(slide.format("opacity", 80))
    assert tab.run("document.querySelector('.heat').style.opacity") == "0.8"
    tab.run(slide.format("threshold", 50))
    tab.wait("document.querySelectorAll('.layers canvas').length == 2")
    alpha = (
        "(c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
        ".filter((v, i) => i % 4 == 3 && v).length / c.width / c.height)"
    )
    tab.wait(f"(s => s > 0.3 && s < 0.7)({alpha}(document.querySelector('.layers canvas')))")
    tab.run(slide.format("step", 2))
    tab.wait("document.querySelector('#picture-deletion').src.includes('number=2')")
    assert tab.run("document.getElementById('value-insertion').value") == "0.500"
    tab.run("document.querySelector('#similar a').click()")
    tab.wait("document.querySelectorAll('#similar .tile').length == 4")
    assert tab.problems == []


def test_text_has_the_contrast_of_wcag_aa_in_light_and_dark() -> None:
    style = STYLE.read_text()
    for block in re.findall(r":root[^{]*\{([^}]*--paper[^}]*)\}", style):
        colours = dict(re.findall(r"--(\w+): (#\w{6})", block))
        for ink in ("ink", "soft", "accent", "good", "bad", "warn", "deletion", "insertion"):
            for ground in ("paper", "wash"):
                assert _contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    assert "@media (prefers-color-scheme: dark)" in style


def test_a_message_is_escaped() -> None:
    values = {"message": HOSTILE, "run": HOSTILE, "other": None, "theme": "auto", "theme_next": "dark"}
    state = type("State", (), {"url": lambda self, *_, **__: "/"})()
    page = render("message.html", {**values, "state": state, "progress": {"loaded": 1, "shards": 1, "text": "", "notes": [HOSTILE]}})
    assert HOSTILE not in page


def _contrast(one: str, other: str) -> float:
    """Return WCAG 2.2's contrast ratio of two colours."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)
