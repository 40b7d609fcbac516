"""The report's page as a parser sees it: complete, closed in itself, safe, and the same for light and dark."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_cases import pages, run_lines, write_profile, write_run

from edge_runtime.reporting.html_page import glued
from edge_runtime.reporting.report import report_text
from edge_runtime.reporting.svg_chart import draw_chart

VOID = {"meta", "link"}
MAX_BYTES = 3_000_000
KINDS = ("profile", "devices", "run")
FIGURES = {
    "profile": {"ladder", "latency-1", "sustained-1-1", "memory-1", "energy-1", "operator-kinds-1", "operators-1",
                "precision-1", "threads-1"},
    "devices": {"ladder", "devices", "latency-1", "latency-2", "sustained-2-1", "operators-2", "threads-2"},
    "run": {"run-1-timeline", "run-1-useful", "run-1-late", "run-1-shares", "run-1-latency-distributions",
            "run-1-steps"},
}  # fmt: skip
HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>&lt;</style>{{7*7}}"


@dataclass
class Page(HTMLParser):
    """What matters of a page; raises on tags that do not match."""

    tags: Counter[str] = field(default_factory=Counter)
    ids: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str, str]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    open_tags: list[str] = field(default_factory=list)
    drawings: list[tuple[str, str]] = field(default_factory=list)
    """(figure id, class) of every SVG."""
    figure: str = ""
    layout: str = ""

    def __post_init__(self) -> None:
        HTMLParser.__init__(self)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = {name: value or "" for name, value in attrs}
        self.tags[tag] += 1
        self.attributes += [(tag, name, value) for name, value in known.items()]
        self.ids += [known["id"]] if "id" in known else []
        self.figure = known.get("id", self.figure) if tag == "figure" else self.figure
        self.layout = known.get("class", self.layout) if tag == "div" else self.layout
        if tag == "svg":
            self.drawings.append((self.figure, self.layout))
        if tag not in VOID:
            self.open_tags.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def parsed(text: str) -> Page:
    page = Page()
    page.feed(text)
    page.close()
    assert page.open_tags == []
    return page


@pytest.mark.parametrize("kind", KINDS)
def test_every_figure_is_there_for_desktop_and_phone(kind: str) -> None:
    page = parsed(pages()[kind])
    drawn = Counter(page.drawings)
    for anchor in FIGURES[kind]:
        assert drawn[f"figure-{anchor}", "wide"] == drawn[f"figure-{anchor}", "narrow"] == 1, anchor
    assert page.tags["svg"] == 2 * page.tags["figure"] == 2 * page.tags["figcaption"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_is_closed_in_itself_and_small(kind: str) -> None:
    text = pages()[kind]
    page = parsed(text)
    assert len(text.encode()) < MAX_BYTES
    assert not {"script", "iframe", "object", "embed", "img", "form", "use", "image"} & set(page.tags)
    for tag, name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "action"):
            assert value.startswith("#") or value == "data:,", (tag, name, value)
        assert not name.startswith("on")
    style = text[text.index("<style>") : text.index("</style>")]
    assert "@import" not in style
    assert "url(" not in style


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_unique_and_every_reference_leads_somewhere(kind: str) -> None:
    page = parsed(pages()[kind])
    assert [name for name, count in Counter(page.ids).items() if count > 1] == []
    wanted = {value[1:] for _, name, value in page.attributes if name == "href" and value.startswith("#")}
    wanted |= {found for _, _, value in page.attributes for found in re.findall(r"url\(#([^)]+)\)", value)}
    assert wanted <= set(page.ids)
    assert len(wanted) > 5


@pytest.mark.parametrize("kind", KINDS)
def test_every_colour_of_a_chart_follows_the_colour_scheme(kind: str) -> None:
    """A fixed colour, such as a library's default, would be wrong in one of the two schemes."""
    page = parsed(pages()[kind])
    colours = {value for _, name, value in page.attributes if name in ("fill", "stroke")}
    assert {c for c in colours if not c.startswith("var(--")} <= {"none", "transparent"}
    style = pages()[kind]
    for colour in colours - {"none", "transparent"}:
        assert style.count(f"{colour[4:-1]}:") >= 2, f"{colour} lacks a light or a dark value"


def test_all_text_of_files_is_escaped(tmp_path: Path) -> None:
    lines = run_lines(30, bundle=HOSTILE, started=HOSTILE, backend=HOSTILE, policy=HOSTILE)
    for point in lines[0]["points"]:
        point["name"], point["width"] = HOSTILE + point["name"], None
    for line in lines[1:-1]:
        line["point"], line["reason"], line["late_because"] = HOSTILE + line["point"], HOSTILE, HOSTILE
    page = parsed(report_text([write_run(tmp_path / "run.jsonl", lines)], "html"))
    harmless = parsed(pages()["run"])
    assert set(page.tags) <= set(harmless.tags)
    assert not any(name.startswith("on") for _, name, _ in page.attributes)
    assert any(HOSTILE in text for text in page.texts)


def test_hostile_names_in_a_profile_are_escaped(tmp_path: Path) -> None:
    path = write_profile(tmp_path / "a.json", model=HOSTILE, command=HOSTILE, notes=(HOSTILE,))
    page = parsed(report_text([path], "html"))
    assert set(page.tags) <= set(parsed(pages()["profile"]).tags) | {"aside", "ul", "li"}  # those show the note
    assert sum(HOSTILE in text for text in page.texts) >= 2


def test_signs_that_no_xml_can_hold_do_not_break_a_drawing() -> None:
    spec = {"data": {"values": [{"a": "\x00\ufffe\ud800b"}]}, "mark": "text", "encoding": {"text": {"field": "a"}}}
    drawn = draw_chart(spec, "\x01", "x")
    assert "\N{REPLACEMENT CHARACTER}" * 3 + "b" in drawn
    assert 'aria-label="\N{REPLACEMENT CHARACTER}"' in drawn


def test_a_drawing_says_what_it_is_and_what_its_marks_are() -> None:
    spec = {"data": {"values": [{"a": 1, "what": "one & only"}]}, "mark": "bar",
            "encoding": {"x": {"field": "a", "type": "quantitative"}, "description": {"field": "what"}}}  # fmt: skip
    drawn = draw_chart(spec, "Bars <of> something", "x")
    assert drawn.startswith("<svg")
    assert 'role="img" aria-label="Bars &lt;of&gt; something"' in drawn
    assert "<title>one &amp; only</title>" in drawn


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.2 ms at 3 %", "1.2\u00a0ms at 3\u00a0%"),
        ("5 ms.", "5\u00a0ms."),
        ("7 missing", "7 missing"),
        ("over 3 seconds", "over 3 seconds"),
    ],
)
def test_figures_keep_their_unit_on_the_line(text: str, expected: str) -> None:
    assert glued(text) == expected


def test_the_example_that_a_real_profile_wrote_becomes_a_page() -> None:
    (example,) = (Path(__file__).parent / "results").glob("example.json")
    page = parsed(report_text([example], "html"))
    assert ("figure-ladder", "wide") in page.drawings


def test_marks_are_described_in_words_and_nothing_else_is() -> None:
    """A chart's library describes every mark by its numbers, which would show under the pointer as noise."""
    titles = re.findall(r"<title>([^<]*)</title>", pages()["profile"])[1:]
    assert len(titles) > 100
    assert [title for title in titles if not re.search(r"\d (ms|MB|mJ)|p50|p99|points$", title)] == []


def test_a_long_run_makes_no_larger_page(tmp_path: Path) -> None:
    """An hour at 30 frames a second is 108,000 frames; a tenth of it shows that size does not follow length."""
    text = report_text([write_run(tmp_path / "long.jsonl", run_lines(10_800))], "html")
    assert len(text) < 1.6 * len(pages()["run"])
