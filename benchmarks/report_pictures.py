"""The gallery of reports (docs/gallery.md): of each shipped bundle, a profile and a played demo.

    python -m benchmarks.report_pictures            # about ten minutes, on a machine that does nothing else
    python -m benchmarks.report_pictures --reuse    # of the files of out/gallery that are there already

Needs playwright, pillow and a Chromium (Debian: apt install chromium). The files behind the pictures stay in
out/gallery.
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


EVERYDAY_PICTURES = (
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
FOCUS_PICTURES = (
    Picture(
        "focus-summary", "profile", "dark", DESKTOP, None, "A network that looks several times, in the dark scheme."
    ),
    Picture("focus-ladder", "profile", "light", DESKTOP, "ladder", "Its points: from one look to all of them."),
    Picture("focus-timeline", "run", "light", DESKTOP, "run-1-timeline", "Its scenario over time."),
    Picture("focus-steps", "run", "light", DESKTOP, "run-1-steps", "How many looks the frames took."),
    Picture("focus-phone", "run", "dark", PHONE, None, "The run on a phone."),
)


@dataclass(frozen=True)
class Shipped:
    """A bundle of the repository, and what is shown of it."""

    bundle: str
    profile_words: tuple[str, ...]
    camera_words: tuple[str, ...]
    pictures: tuple[Picture, ...]
    before: tuple[str, ...] = ()
    """A command that makes the video."""


SHIPPED = (
    Shipped(
        "apps/demo/everyday-20.bundle", ("--threads", "sweep", "--sustained", "60s"),
        ("--source", "demo", "--scenario", "apps/demo/scenario.toml"), EVERYDAY_PICTURES,
    ),
    Shipped(
        "apps/demo/focus-20.bundle", (),
        ("--bundle", "apps/demo/focus-20.bundle", "--source", "out/wall.mp4",
         "--scenario", "apps/demo/focus-scenario.toml"),
        FOCUS_PICTURES, ("apps.demo.make_wall", "--out", "out/wall.mp4"),
    ),
)  # fmt: skip


def take_pictures(pages: dict[str, Path], wanted: tuple[Picture, ...]) -> list[Picture]:
    """Take every picture whose figure the pages have; pictures that they lack are removed."""
    import shutil

    from playwright.sync_api import sync_playwright

    taken = []
    with sync_playwright() as playwright:
        path = next((found for name in CHROMIUM_NAMES if (found := shutil.which(name))), None)
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for picture in wanted:
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


def section_of(taken: list[Picture], result: Path, commands: list[str]) -> list[str]:
    """What the gallery says of one bundle."""
    from edge_runtime.profiling.result import load_result

    profile = load_result(result)
    device = profile.environment.model or profile.environment.cpu_model or profile.environment.system
    lines = [
        f"## {profile.bundle.name}",
        "",
        f"{profile.created[:10]}, {device}, {profile.environment.usable_cores} cores; {profile.verdict.reason}.",
        "",
        "```",
        *commands,
        "```",
    ]
    for picture in taken:
        lines += ["", f"![{picture.caption}](pictures/report-{picture.name}.png)", "", f"*{picture.caption}*"]
    return lines


def write_gallery(sections: list[list[str]]) -> None:
    """Fill the marked part of docs/gallery.md."""
    text = GALLERY.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    filling = "\n\n".join("\n".join(lines) for lines in sections)
    GALLERY.write_text(f"{head}{BEGIN}\n{filling}\n{END}{rest.split(END)[1]}", encoding="utf-8")


def show(shipped: Shipped, reuse: bool) -> tuple[list[Picture], list[str]]:
    """Measure one bundle and take its pictures; returns them and its section."""
    from edge_runtime.reporting.report import write_report

    work = WORK / Path(shipped.bundle).stem
    work.mkdir(parents=True, exist_ok=True)
    result, run = work / "profile.json", work / "telemetry.jsonl"
    profile_words = ["edge_runtime", "profile", shipped.bundle, *shipped.profile_words]
    camera_words = ["apps.camera", *shipped.camera_words, "--show", "no"]
    if not (reuse and result.exists()):
        _measure([*profile_words, "--out", str(result)])
    if not (reuse and run.exists()):
        if shipped.before:
            _measure(list(shipped.before))
        _measure([*camera_words, "--telemetry", str(run)])
    pages = {
        "profile": write_report([result], "html", work / "profile.html"),
        "run": write_report([run], "html", work / "run.html"),
    }
    taken = take_pictures({kind: path.resolve() for kind, path in pages.items()}, shipped.pictures)
    commands = [
        " ".join(["edge-runtime", *profile_words[1:], "--out", "profile.json"]),
        *([" ".join(["python -m", *shipped.before])] if shipped.before else []),
        " ".join(["python -m", *camera_words, "--telemetry", "telemetry.jsonl"]),
        "edge-runtime report profile.json --out profile.html",
        "edge-runtime report telemetry.jsonl --out run.html",
    ]
    return taken, section_of(taken, result, commands)


def _measure(words: list[str]) -> None:
    """Run a command of this project."""
    subprocess.run([sys.executable, "-m", *words], check=True, cwd=ROOT)


@click.command()
@click.option("--reuse", is_flag=True, help="Take profiles and recordings of out/gallery that are there already.")
def main(reuse: bool) -> None:
    """Make the pictures of docs/gallery.md."""
    shown = [show(shipped, reuse) for shipped in SHIPPED]
    write_gallery([section for _, section in shown])
    names = [picture.name for taken, _ in shown for picture in taken]
    total = sum((PICTURES / f"report-{name}.png").stat().st_size for name in names)
    click.echo(f"wrote {len(names)} pictures, {total / 1e3:.0f} kB, and docs/gallery.md")


if __name__ == "__main__":
    main()
