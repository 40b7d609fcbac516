"""Make a report of profiles and recorded runs: read the files, tell their story, write it in the wanted format.

write_report(["everyday-20.profile.json", "telemetry.jsonl"], "html", "report.html")
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from edge_runtime.errors import ResultError, SinkError
from edge_runtime.profiling.result import ProfileResult, load_result
from edge_runtime.reporting.document import Report, Section, Table, Tile
from edge_runtime.reporting.html_page import html_page
from edge_runtime.reporting.ladder import Device, prepare_devices
from edge_runtime.reporting.profile_sections import profile_sections
from edge_runtime.reporting.profile_story import profile_notes, profile_summary, profile_tiles, query_table
from edge_runtime.reporting.run_log import RunLog
from edge_runtime.reporting.run_reader import MAX_LINE_BYTES, looks_like_run, read_run
from edge_runtime.reporting.run_sections import run_sections
from edge_runtime.reporting.run_story import RunStory
from edge_runtime.reporting.text_formats import comma_separated, json_text, markdown

FORMATS: dict[str, Callable[[Report], str]] = {
    "html": html_page,
    "json": json_text,
    "csv": comma_separated,
    "md": markdown,
}


def write_report(paths: Sequence[str | Path], form: str, out: str | Path) -> Path:
    """Make a report and write it; a reader sees the old file or the whole new one.

    Args:
        paths: profile results and telemetry files of one bundle, at least one.
        form: one of FORMATS.
        out: the file to write.
    Raises:
        ResultError: a file cannot be read or used, or they are of different bundles.
        BackendError: a package of the extra `report` is missing (format html only).
        SinkError: the report cannot be written.
    """
    out = Path(out)
    if any(_same_file(out, Path(path)) for path in paths):
        raise SinkError(f"{out}: is one of the files that the report is about; choose another --out")
    text = report_text(paths, form)
    temporary = out.with_name(f"{out.name}.{os.getpid()}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8", newline="\n")
        os.replace(temporary, out)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        reason = error.strerror or error
        raise SinkError(f"{out}: the report cannot be written: {reason}; choose another --out") from error
    return out


def report_text(paths: Sequence[str | Path], form: str) -> str:
    """The report in one of FORMATS."""
    return FORMATS[form](build_report(paths))


def build_report(paths: Sequence[str | Path]) -> Report:
    """Read the files and tell their story.

    Raises:
        ResultError: a file cannot be read or used, or they are of different bundles.
    """
    profiles: list[tuple[str, ProfileResult]] = []
    runs: list[RunLog] = []
    for path in paths:
        if _is_run(Path(path)):
            runs.append(read_run(path))
        else:
            profiles.append((str(path), load_result(path)))
    devices, split = prepare_devices(profiles) if profiles else ((), "")
    name = _one_bundle(devices, runs)
    profiled_ms = {e.point.name: e.p50_ms for e in devices[0].ladder} if len(devices) == 1 else None
    stories = [RunStory(run, profiled_ms) for run in runs]
    return Report(
        title=name or "A recorded run",
        subtitle=_subtitle(devices, runs),
        summary=(*(s for story in stories for s in story.summary()), *profile_summary(devices, split)),
        tiles=_tiles(devices, stories),
        notes=(*_run_notes(runs), *profile_notes(devices)),
        sections=(*_run_sections(stories), *(profile_sections(devices, split) if devices else ())),
        main_tables=_main_tables(devices, stories),
    )


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _is_run(path: Path) -> bool:
    """Whether a file is telemetry, by its first line, or by its name when that line says nothing.

    Raises:
        ResultError: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            first = stream.readline(MAX_LINE_BYTES)
    except OSError as error:
        raise ResultError(f"{path}: cannot be read: {error.strerror or error}; check the path") from error
    return looks_like_run(first) or path.suffix == ".jsonl"


def _one_bundle(devices: Sequence[Device], runs: Sequence[RunLog]) -> str:
    """The name of the bundle that everything is about; empty when no file knows it.

    Raises:
        ResultError: there are two.
    """
    named = [(device.path, device.result.bundle.name) for device in devices]
    named += [(run.path, run.bundle) for run in runs if run.bundle]
    for path, name in named[1:]:
        if name != named[0][1]:
            raise ResultError(
                f"{path}: is of the bundle {name!r}, but {named[0][0]} is of {named[0][1]!r}; a report is about one "
                "bundle, so make one for each"
            )
    return named[0][1] if named else ""


def _subtitle(devices: Sequence[Device], runs: Sequence[RunLog]) -> str:
    parts = [f"profiled on {device.label}, {device.result.created[:10]}" for device in devices]
    parts += [f"recorded {run.started[:16].replace('T', ' ')} UTC" for run in runs if run.started]
    return "; ".join(parts)


def _tiles(devices: Sequence[Device], stories: Sequence[RunStory]) -> tuple[Tile, ...]:
    """Of the only kind of file; of both, the most telling ones; of several runs, one each."""
    if len(stories) > 1:
        told = tuple(
            Tile(f"Run {number}: on time", *(lambda t: (t.text, t.detail, t.good))(story.tiles()[0]))
            for number, story in enumerate(stories, start=1)
        )
    else:
        told = stories[0].tiles() if stories else ()
    if not devices:
        return told
    return (*told[:3], *profile_tiles(devices)[:3]) if told else profile_tiles(devices)


def _run_notes(runs: Sequence[RunLog]) -> list[str]:
    return [f"{f'{run.path}: ' if len(runs) > 1 else ''}{note}" for run in runs for note in run.notes]


def _run_sections(stories: Sequence[RunStory]) -> list[Section]:
    made: list[Section] = []
    for number, story in enumerate(stories, start=1):
        suffix = f", run {number}" if len(stories) > 1 else ""
        made += run_sections(story, f"run-{number}-", suffix)
    return made


def _main_tables(devices: Sequence[Device], stories: Sequence[RunStory]) -> tuple[Table, ...]:
    """What CSV writes: every point of the profiles, or the scores of the runs (their latencies without scores)."""
    tables = [query_table(devices)] if devices else []
    compared = all(story.comparison is not None for story in stories)
    tables += [story.scores_table() if compared else story.latency_table() for story in stories]
    return tuple(tables)
