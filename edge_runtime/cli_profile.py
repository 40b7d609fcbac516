"""edge-runtime profile: measure a bundle on this device and keep the result where the runtime finds it."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.bundle import Bundle, default_bundle_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edge_runtime.profiling.result_records import ProfileResult
    from edge_runtime.profiling.settings import ProfileSettings

INTERRUPTED_CODE = 130
MODE_HELP = {
    "quick": "Under a minute: a query table for the runtime.",
    "full": "Everything, 1000 runs a point; tens of minutes.",
}


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path), required=False)
@click.option("--device", "--profile", "device", default=None, help="Device profile, by name or .toml file.")
@click.option("--backend", default=None, help="onnxruntime, executorch or null; several by comma, or all.")
@click.option("--precision", type=click.Choice(["fp32", "int8"]), default=None, help="Default: all of the bundle.")
@click.option("--threads", default=None, metavar="1,2,4|sweep", help="Default: as many as the runtime takes.")
@click.option("--point", "points", multiple=True, help="Only this operating point; may be given several times.")
@click.option("--quick", "mode", flag_value="quick", help=MODE_HELP["quick"])
@click.option("--full", "mode", flag_value="full", help=MODE_HELP["full"])
@click.option("--sustained", default=None, metavar="10m", help="Also run the most accurate point so long, no pause.")
@click.option("--period-ms", type=click.FloatRange(0, 10_000), default=None, help="Between runs.  [default: 33.3]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the order of blocks.")
@click.option("--out", type=click.Path(path_type=Path), default=None, metavar="DIR", help="Instead of beside it.")
@click.option("--format", "-f", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def profile(bundle: Path | None, out: Path | None, form: str, **options: Any) -> None:
    """Measure what each operating point of BUNDLE costs on this device.

    The result is kept in your data folder and beside the bundle; the runtime takes its query table from there.
    Ctrl-C ends early and keeps what is done (exit code 130).
    """
    from edge_runtime.profiling.profiler import Profiler
    from edge_runtime.profiling.result import result_values
    from edge_runtime.profiling.result_table import render_result
    from edge_runtime.profiling.store import keep_result

    opened = Bundle.load(bundle or default_bundle_path())
    with ExitStack() as stack:
        stack.enter_context(_sigterm_interrupts())
        settings, device, sensors = _prepare(options, opened)
        command = shlex.join(["edge-runtime", *sys.argv[1:]])
        progress = stack.enter_context(_progress_bar())
        profiler = Profiler(opened, settings, device, sensors, command=command, progress=progress)
        result = profiler.run()
    written = keep_result(result, opened.root, out, _say)
    click.echo(json.dumps(result_values(result)) if form == "json" else render_result(result))
    for path in written:
        _say(f"wrote {path}")
    if profiler.interrupted:
        _say(f"interrupted: {_kept(result)}")
        raise click.exceptions.Exit(INTERRUPTED_CODE)


def _prepare(options: dict[str, Any], bundle: Bundle) -> tuple[ProfileSettings, Any, Any]:
    """Settings, device profile, and sensors that the profile trusts."""
    from edge_runtime.device_profile import load_profile, match_profile, read_machine_facts
    from edge_runtime.profiling.fingerprint import usable_cores
    from edge_runtime.profiling.settings import MODES, parse_duration, parse_threads
    from edge_runtime.sensor_loop import TrustedSensors
    from edge_runtime.sensors import DeviceSensors

    name = options["device"]
    device = match_profile(read_machine_facts())[0] if name is None else load_profile(name)
    threads, note = parse_threads(options["threads"], usable_cores())
    if note:
        _say(note)
    settings = replace(
        MODES[options["mode"] or "standard"],
        threads=threads,
        backends=_backends(options["backend"], bundle),
        precision=options["precision"],
        points=options["points"],
        seed=options["seed"],
        sustained_s=0.0 if options["sustained"] is None else parse_duration(options["sustained"]),
    )
    if options["period_ms"] is not None:
        settings = replace(settings, period_ms=options["period_ms"])
    return settings, device, TrustedSensors(DeviceSensors(temperature_zones=device.temperature_zones), device)


def _backends(text: str | None, bundle: Bundle) -> tuple[str, ...]:
    if text is None:
        return ()
    if text == "all":
        return tuple(dict.fromkeys(program.backend for program in bundle.manifest.programs))
    return tuple(dict.fromkeys(part.strip() for part in text.split(",")))


@contextmanager
def _progress_bar() -> Iterator[Callable[[str, float, float], None]]:
    """A bar with the time that is left, on standard error; nothing where that is no terminal."""
    from edge_runtime.errors import missing_package

    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
    except ImportError as error:
        raise missing_package("rich", "report", "profile") from error
    columns = (
        TextColumn("{task.description:<34}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )  # fmt: skip
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=None, left="")

        def follow(text: str, done_s: float, total_s: float) -> None:
            left = "" if total_s <= 0.0 else f"about {_duration(total_s - done_s)} left"
            bar.update(task, description=text, completed=done_s, total=total_s or None, left=left)

        yield follow


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """A request to end is a Ctrl-C: what is done is kept."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _kept(result: ProfileResult) -> str:
    runs = sum(point.latency.count for point in result.points)
    return f"{len(result.points)} points with {runs} runs are kept; run the command again for the rest"


def _duration(seconds: float) -> str:
    seconds = max(0.0, seconds)
    return f"{seconds:.0f} s" if seconds < 100.0 else f"{seconds / 60.0:.0f} min"


def _say(sentence: str) -> None:
    click.echo(sentence, err=True)
