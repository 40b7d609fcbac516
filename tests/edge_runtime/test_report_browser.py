"""The report in a real browser: desktop and phone, light and dark, screen and paper.

Skipped where playwright or a Chromium is missing; tests/edge_runtime/test_report_page.py needs neither.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from report_cases import pages

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SIZES = {"desktop": (1280, 900), "tablet": (768, 1024), "phone": (390, 844), "small phone": (320, 568)}
SCHEMES = ("light", "dark")
VIEWS = [
    *product(("profile", "devices", "run"), ("desktop", "phone"), SCHEMES),
    ("devices", "tablet", "light"),
    ("devices", "small phone", "dark"),
    ("run", "small phone", "light"),
]
LEAST_TEXT_CONTRAST = 4.5
"""WCAG 2.2 AA for text."""
LEAST_MARK_CONTRAST = 3.0
"""WCAG 2.2 AA for what is needed to understand a graphic; bands, grids and pale bars are not held to it."""

MEASURE = """
(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
  const known = new Map();
  const rgba = colour => known.get(colour) ?? known.set(colour, paint(colour)).get(colour);
  const paint = colour => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const linear = v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => { const f = v => linear(v / 255);
    return .2126 * f(r) + .7152 * f(g) + .0722 * f(b); };
  const contrast = (one, other) => { const [a, b] = [light(rgba(one)), light(rgba(other))].sort((x, y) => y - x);
    return (a + .05) / (b + .05); };
  const paper = node => { for (let at = node; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor; if (rgba(colour)[3] === 255) return colour; }
    return 'rgb(255, 255, 255)'; };
  const shown = node => node.checkVisibility() && node.getBoundingClientRect().width > 0;
  const words = 'p, dt, dd, h1, h2, h3, li, th, td, a, summary, figcaption, pre, svg text';
  const texts = [...document.querySelectorAll(words)]
    .filter(node => shown(node) && node.textContent.trim())
    .map(node => [node.textContent.trim().slice(0, 40), contrast(
      node.namespaceURI.endsWith('svg') ? getComputedStyle(node).fill : getComputedStyle(node).color, paper(node))]);
  const marks = [...document.querySelectorAll('svg .mark-symbol path, svg .mark-line path')].filter(shown)
    .map(node => { const style = getComputedStyle(node);
      return [node.closest('figure').id, style.fill === 'none' ? style.stroke : style.fill, paper(node)]; })
    .map(([figure, colour, ground]) => [figure, contrast(colour, ground)]);
  const beyond = [...document.querySelectorAll('body *')].filter(node => shown(node) && !node.closest('.scroll'))
    .filter(node => node.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
    .map(node => `${node.tagName} ${node.textContent.trim().slice(0, 40)}`);
  const figures = [...document.querySelectorAll('figure')].map(figure => {
    const drawings = [...figure.querySelectorAll('svg')].filter(shown);
    const box = drawings.length ? drawings[0].getBoundingClientRect() : {width: 0, height: 0};
    return [figure.id, drawings.length, box.width, box.height]; });
  return {
    texts, marks, beyond, figures,
    scroll: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    small: [...document.querySelectorAll('svg text')].filter(shown)
      .map(node => node.getBoundingClientRect().height).filter(height => height > 0 && height < 9).length,
    requests: performance.getEntriesByType('resource').map(entry => entry.name),
  };
})()
"""


def find_chromium() -> str | None:
    """A Chromium of this machine."""
    return next((found for name in CHROMIUM_NAMES if (found := shutil.which(name))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        path = find_chromium() or (own if Path(own).exists() else None)
        if path is None:
            pytest.skip("no Chromium: install Debian's chromium, or run playwright install chromium")
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every kind of page as a file."""
    folder = tmp_path_factory.mktemp("pages")
    for kind, text in pages().items():
        (folder / f"{kind}.html").write_text(text, encoding="utf-8")
    return {kind: folder / f"{kind}.html" for kind in pages()}


def measured(browser: Any, path: Path, size: tuple[int, int], scheme: str) -> tuple[dict[str, Any], list[str]]:
    """What the page looks like, and what the console said."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    said: list[str] = []
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(path.as_uri())
    found: dict[str, Any] = page.evaluate(MEASURE)
    context.close()
    return found, said


@pytest.mark.parametrize(("kind", "size", "scheme"), VIEWS)
def test_the_page_is_whole_and_readable(
    browser: Any, files: dict[str, Path], kind: str, size: str, scheme: str
) -> None:
    found, said = measured(browser, files[kind], SIZES[size], scheme)
    assert said == []
    assert found["requests"] == []
    assert found["scroll"] <= 0
    assert found["beyond"] == []
    for figure, drawings, width, height in found["figures"]:
        assert drawings == 1, figure
        assert width > 200, figure
        assert height > 60, figure
    assert found["small"] == 0
    assert [text for text in found["texts"] if text[1] < LEAST_TEXT_CONTRAST] == []
    assert len(found["texts"]) > 100
    assert [mark for mark in found["marks"] if mark[1] < LEAST_MARK_CONTRAST] == []
    assert len(found["marks"]) > 5


def test_both_schemes_differ(browser: Any, files: dict[str, Path]) -> None:
    """Were prefers-color-scheme not obeyed, all other tests would look at one scheme twice."""
    grounds = set()
    for scheme in SCHEMES:
        context = browser.new_context(color_scheme=scheme)
        page = context.new_page()
        page.goto(files["run"].as_uri())
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        context.close()
    assert len(grounds) == 2


def test_paper_is_light_and_shows_closed_tables(browser: Any, files: dict[str, Path]) -> None:
    context = browser.new_context(color_scheme="dark", viewport={"width": 718, "height": 1000})
    page = context.new_page()
    page.goto(files["run"].as_uri())
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.querySelector('.narrow')).display") == "none"
    assert page.evaluate("document.querySelector('details:not([open]) table').getBoundingClientRect().height") > 50
    assert page.pdf(format="A4").startswith(b"%PDF")
    context.close()


def test_the_page_works_without_scripts(browser: Any, files: dict[str, Path]) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(files["profile"].as_uri())
    assert page.locator("figure svg:visible").count() == page.locator("figure").count()
    context.close()
