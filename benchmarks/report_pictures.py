"""The gallery of reports (docs/gallery.md): profile the bundle, play the demo, draw both pages, take their pictures.

    python -m benchmarks.report_pictures                              # the shipped bundle; about ten minutes
    python -m benchmarks.report_pictures --result P.json --run T.jsonl   # of files that are there already

Needs playwright, pillow and a Chromium. The files behind the pictures stay in out/gallery.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.record import RESULTS

ROOT = RESULTS.parent.parent
PICTURES, GALLERY, WORK = ROOT / "docs" / "pictures", ROOT / "docs" / "gallery.md", ROOT / "out" / "gallery"
BEGIN, END = "<!-- gallery:begin -->", "<!-- gallery:end -->"
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
DESKTOP, PHONE = (960, 700), (390, 844)


@dataclass(frozen=True)
class Picture:
    """One picture of a page."""

    name: str
    page: str
    """"profile" or "run"."""
    scheme: str
    size: tuple[int, int]
    figure: str | None
    """Anchor of the figure; None takes the top of the page."""
    caption: str


PICTURES_WANTED = (
    Picture("summary", "profile", "light", DESKTOP, None, "A profile: what a manager reads."),
    Picture("ladder", "profile", "dark", DESKTOP, "ladder", "The ladder with its Pareto front, in the dark scheme."),
    Picture("latency", "profile", "light", DESKTOP, "latency-1", "How latency is distributed at each point."),
    Picture("precision", "profile", "light", DESKTOP, "precision-1", "int8 against fp32."),
    Picture("threads", "profile", "light", DESKTOP, "threads-1", "The thread sweep."),
    Picture("sustained", "profile", "light", DESKTOP, "sustained-1-1", "The most accurate point without pause."),
    Picture("memory", "profile", "light", DESKTOP, "memory-1", "What each point adds to the memory of the process."),
    Picture("operators", "profile", "light", DESKTOP, "operator-kinds-1", "Where the time of a run goes."),
    Picture("timeline", "run", "light", DESKTOP, "run-1-timeline", "The demo's scenario over time."),
    Picture("static", "run", "dark", DESKTOP, "run-1-useful", "The same run against single points (computed)."),
    Picture("late", "run", "dark", DESKTOP, "run-1-late", "When each of them was late."),
    Picture("phone-light", "run", "light", PHONE, None, "On a phone."),
    Picture("phone-dark", "profile", "dark", PHONE, None, "On a phone at night."),
)


def take_pictures(pages: dict[str, Path]) -> list[Picture]:
    """Take every picture whose figure the pages have; pictures that they lack are removed."""
    import shutil

    from playwright.sync_api import sync_playwright

    taken = []
    with sync_playwright() as playwright:
        path = next((found for name in CHROMIUM_NAMES if (found := shutil.which(name))), None)
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for picture in PICTURES_WANTED:
            target = PICTURES / f"report-{picture.name}.png"
            target.unlink(missing_ok=True)
            size = {"width": picture.size[0], "height": picture.size[1]}
            context = browser.new_context(viewport=size, color_scheme=picture.scheme)
            page = context.new_page()
            page.goto(pages[picture.page].as_uri())
            if _take(page, picture, target):
                _shrink(target)
                taken.append(picture)
            context.close()
        browser.close()
    return taken


def _take(page: Any, picture: Picture, target: Path) -> bool:
    if picture.figure is None:
        page.screenshot(path=target)
        return True
    figure = page.locator(f"#figure-{picture.figure}")
    if figure.count():
        page.add_style_tag(content="figure { padding: 16px; margin: 0 !important; background: var(--paper); }")
        figure.screenshot(path=target)
    return bool(figure.count())


def _shrink(path: Path) -> None:
    """Reduce to a palette: these files stay in the repository."""
    from PIL import Image

    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(96, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


def write_gallery(taken: list[Picture], result: Path, commands: list[str]) -> None:
    """Fill the marked part of docs/gallery.md."""
    from edge_runtime.profiling.result import load_result

    profile = load_result(result)
    device = profile.environment.model or profile.environment.cpu_model or profile.environment.system
    lines = [
        f"Bundle {profile.bundle.name}, {profile.created[:10]}, {device}, {profile.environment.usable_cores} cores; "
        f"{profile.verdict.reason}.",
        "",
        "```",
        *commands,
        "```",
    ]
    for picture in taken:
        lines += ["", f"![{picture.caption}](pictures/report-{picture.name}.png)", "", f"*{picture.caption}*"]
    text = GALLERY.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    GALLERY.write_text(f"{head}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{rest.split(END)[1]}", encoding="utf-8")


def _measure(words: list[str]) -> None:
    """Run a command of this project."""
    subprocess.run([sys.executable, "-m", *words], check=True, cwd=ROOT)


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), default=Path("apps/demo/everyday-20.bundle"))
@click.option("--result", type=click.Path(path_type=Path), help="A profile that is there already.")
@click.option("--run", type=click.Path(path_type=Path), help="Telemetry that is there already.")
def main(bundle: Path, result: Path | None, run: Path | None) -> None:
    """Make the pictures of docs/gallery.md."""
    from edge_runtime.reporting.report import write_report

    WORK.mkdir(parents=True, exist_ok=True)
    profile_words = ["edge_runtime", "profile", str(bundle), "--threads", "sweep", "--sustained", "60s"]
    camera_words = ["apps.camera", "--source", "demo", "--scenario", "apps/demo/scenario.toml", "--show", "no"]
    if result is None:
        result = WORK / "profile.json"
        _measure([*profile_words, "--out", str(result)])
    if run is None:
        run = WORK / "telemetry.jsonl"
        _measure([*camera_words, "--telemetry", str(run)])
    pages = {
        "profile": write_report([result], "html", WORK / "profile.html"),
        "run": write_report([run], "html", WORK / "run.html"),
    }
    taken = take_pictures({kind: path.resolve() for kind, path in pages.items()})
    commands = [
        " ".join(["edge-runtime", *profile_words[1:], "--out", "profile.json"]),
        " ".join(["python -m", *camera_words, "--telemetry", "telemetry.jsonl"]),
        "edge-runtime report profile.json --out profile.html",
        "edge-runtime report telemetry.jsonl --out run.html",
    ]
    write_gallery(taken, result, commands)
    total = sum((PICTURES / f"report-{picture.name}.png").stat().st_size for picture in taken)
    click.echo(f"wrote {len(taken)} pictures, {total / 1e3:.0f} kB, and docs/gallery.md")


if __name__ == "__main__":
    main()
