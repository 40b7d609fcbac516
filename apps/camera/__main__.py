"""Run the camera application: python -m apps.camera --help"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from edge_runtime.budget import Budget
from edge_runtime.errors import EdgeRuntimeError
from edge_runtime.steady_answer import VIDEO_SMOOTH_S

SOURCE_HELP = (
    "A webcam (0, /dev/video0), a video or picture file, a folder or glob of pictures, an rtsp:// or http(s):// "
    "address, 'demo' or 'pattern'."
)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--source", "-i", default="demo", help=SOURCE_HELP)
@click.option("--bundle", type=click.Path(path_type=Path), help="Bundle folder.  [default: the one that ships]")
@click.option("--profile", metavar="NAME|FILE", help="Device profile.  [default: the one that matches this machine]")
@click.option("--target-fps", type=float, help="One frame period as the deadline.  [default: 30]")
@click.option("--max-latency-ms", type=float, help="Deadline from capture to answer; instead of --target-fps.")
@click.option("--min-accuracy", type=float, default=0.0, help="Use no point whose expected accuracy (0-1) is lower.")
@click.option("--max-memory-mb", type=click.FloatRange(1), help="Of all resident points.  [default: by the largest]")
@click.option("--save", type=click.Path(path_type=Path), help="Save the picture with its overlay as a video.")
@click.option(
    "--show", type=click.Choice(["auto", "yes", "no"]), default="auto", help="Open a window; auto: if one can."
)
@click.option("--telemetry", type=click.Path(path_type=Path), help="Write one JSON line a frame.")
@click.option(
    "--report", type=click.Path(path_type=Path), help="Write a page about the run at its end; also its telemetry."
)
@click.option("--scenario", type=click.Path(path_type=Path), help="TOML file that scripts the run.")
@click.option("--pin", metavar="POINT", help="Use one operating point only.")
@click.option("--adapt/--no-adapt", default=True, help="Move among operating points, or stay at the most accurate one.")
@click.option("--policy", default="ours", help="Who chooses the point: ours, static, threshold, pi, alert, slackfit.")
@click.option(
    "--smooth", type=click.FloatRange(0), metavar="SECONDS",
    help="Average the answers over so long, from cut to cut; 0: each frame alone, and all that a detector can do.  "
    f"[default: {VIDEO_SMOOTH_S}, of a detector or clips 0]",
)  # fmt: skip
@click.option(
    "--look-where-found", is_flag=True,
    help="Start a frame's patches where the last frame's answer was found (Glance and Focus bundles).",
)  # fmt: skip
@click.option(
    "--metrics", metavar="[HOST:]PORT", help="Serve Prometheus metrics; without a host, to this machine only."
)
@click.option("--otlp", metavar="URL", help="Send metrics to an OpenTelemetry collector, by HTTP.")
@click.option("--backend", help="onnxruntime, executorch or null.  [default: the bundle's first]")
@click.option("--threads", type=click.IntRange(1), help="Threads of the engine.  [default: the cores, at most 4]")
@click.option("--query-table", default="auto", metavar="FILE|none", help="A result of edge-runtime profile.")
@click.option("--max-frames", type=click.IntRange(1), help="End after so many frames.")
@click.option("--loop", is_flag=True, help="Start files again at their end.")
@click.option(
    "--realtime/--no-realtime",
    default=None,
    help="Play files at their own speed, dropping nothing.  [default: with a window or a scenario]",
)
def main(**options: Any) -> None:
    """Classify what a camera sees, on time: the network is made smaller and larger frame by frame.

    In the window: space pauses, arrows change the deadline, p pins the operating point, q quits.
    """
    signal.signal(signal.SIGTERM, _stop)  # so that the video is finished and no child is left
    try:
        sys.exit(_run(options))
    except EdgeRuntimeError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


def _run(options: dict[str, Any]) -> int:
    """Do what the options say; returns the exit code."""
    from rich.console import Console

    from apps.camera.app import CameraOptions, run_camera
    from apps.camera.scenario import load_scenario
    from apps.camera.stand_in import chosen_profile
    from apps.camera.summary import summary_table

    telemetry = _telemetry(options["telemetry"], options["report"])
    budget = _budget(options)
    scenario = None if options["scenario"] is None else load_scenario(options["scenario"])
    options["profile"] = chosen_profile(options["profile"], scenario, _tell)
    kept = ("source", "save", "show", "pin", "max_frames", "realtime", "loop")
    wanted = CameraOptions(budget=budget, scenario=scenario, **{name: options[name] for name in kept})
    with contextlib.ExitStack() as stack:
        listen = [stack.enter_context(metrics).take for metrics in _metrics(options)]
        outcome = run_camera(wanted, _runtime_loader({**options, "telemetry": telemetry}, budget, listen), _tell)
    if outcome.summary.frames:
        Console().print(summary_table(outcome.summary, outcome.point_names))
        if options["report"] is not None and telemetry is not None:
            _write_report(telemetry, options["report"])
    if outcome.broken is not None:
        raise outcome.broken
    return 0


def _metrics(options: dict[str, Any]) -> Iterator[Any]:
    """What takes each answer for whoever watches the device."""
    if options["metrics"] is not None:
        from edge_runtime.metrics import serve_metrics

        yield serve_metrics(options["metrics"])
    if options["otlp"] is not None:
        from edge_runtime.otlp_metrics import send_metrics

        yield send_metrics(options["otlp"], _tell)


def _runtime_loader(options: dict[str, Any], budget: Budget, listen: list[Any]) -> Callable[[Any], Any]:
    """A function that loads the runtime with the sensors it is given, and has each of `listen` called with answers."""
    from edge_runtime.bundle import Bundle, default_bundle_path
    from edge_runtime.runtime import Runtime

    same = ("backend", "profile", "threads", "adapt", "policy", "telemetry", "query_table", "look_where_found")

    def load(sensors: Any) -> Any:
        bundle = Bundle.load(options["bundle"] or default_bundle_path())
        facts = bundle.manifest  # boxes are not averaged, and a network for clips reads the past itself
        smooth_s = VIDEO_SMOOTH_S if facts.boxes is None and facts.clip is None else 0.0
        smooth_s = smooth_s if options["smooth"] is None else options["smooth"]
        runtime = Runtime.load(
            bundle, budget=budget, sensors=sensors, global_thread_pool=True, warn=_tell, tell=_tell, smooth_s=smooth_s,
            **{name: options[name] for name in same},
        )  # fmt: skip
        for take in listen:
            runtime.on_result(take)
        return runtime

    return load


def _tell(sentence: str) -> None:
    click.echo(sentence, err=True)


def _write_report(telemetry: Path, page: Path) -> None:
    from edge_runtime.reporting.report import write_report

    _tell(f"wrote {write_report([telemetry], 'html', page)}")


def _telemetry(telemetry: Path | None, report: Path | None) -> Path | None:
    """Where telemetry goes: a report needs it.

    Raises:
        BackendError: a report is wanted, but what draws it is not installed; said now, not after the run.
    """
    if report is None:
        return telemetry
    from edge_runtime.reporting.html_page import require_page_packages

    require_page_packages()
    return telemetry or report.with_suffix(".telemetry.jsonl")


def _budget(options: dict[str, Any]) -> Budget:
    """What the options ask for."""
    target_fps, deadline_ms, min_accuracy = (options[k] for k in ("target_fps", "max_latency_ms", "min_accuracy"))
    if target_fps is not None and deadline_ms is not None:
        raise click.UsageError("--target-fps and --max-latency-ms both set the deadline; give one of them")
    if deadline_ms is not None:
        budget = Budget(deadline_ms, min_accuracy)
    else:
        budget = Budget.from_fps(30.0 if target_fps is None else target_fps, min_accuracy)
    if options["max_memory_mb"] is None:
        return budget
    return replace(budget, max_memory_bytes=round(options["max_memory_mb"] * 1e6))


def _stop(number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main(prog_name="python -m apps.camera")
