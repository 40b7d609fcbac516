"""The command `edge-runtime run`."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.budget import Budget
from edge_runtime.bundle import default_bundle_path

if TYPE_CHECKING:
    from edge_runtime.runtime import Runtime


@click.command()
@click.option("--source", "-i", default="demo", show_default=True, help="Camera index, file, folder, URL, or demo.")
@click.option("--bundle", type=click.Path(path_type=Path), default=None, help="NAME.bundle; default: the shipped one.")
@click.option("--profile", default=None, help="Device profile, by name or .toml file; default: this machine's match.")
@click.option("--backend", default=None, help="onnxruntime, executorch or null; default: the bundle's first.")
@click.option("--precision", type=click.Choice(["fp32", "int8"]), default=None, help="Default: all of the bundle.")
@click.option("--threads", type=click.IntRange(1, 64), default=None, help="Default: the usable cores, at most 4.")
@click.option("--target-fps", type=float, default=30.0, show_default=True, help="The deadline is one period of it.")
@click.option("--max-latency-ms", type=float, default=None, help="The deadline itself; wins over --target-fps.")
@click.option("--min-accuracy", type=float, default=0.0, show_default=True, help="0 to 1, on the select split.")
@click.option("--max-memory-mb", type=click.FloatRange(1), default=None, help="Of all resident points together.")
@click.option("--pin", default=None, metavar="POINT", help="Use one operating point throughout.")
@click.option("--no-adapt", is_flag=True, help="Stay at the most accurate point.")
@click.option(
    "--policy", default="ours", show_default=True, help="Who chooses: ours, static, threshold, pi, alert, ..."
)
@click.option("--look-where-found", is_flag=True, help="Video: start where the last frame's answer was found.")
@click.option("--smooth", type=click.FloatRange(0), default=0.0, metavar="SECONDS", help="Average a video's answers.")
@click.option("--metrics", default=None, metavar="[HOST:]PORT", help="Serve Prometheus metrics; host: 127.0.0.1.")
@click.option("--otlp", default=None, metavar="URL", help="Send metrics to an OpenTelemetry collector, by HTTP.")
@click.option("--max-frames", type=click.IntRange(1), default=None)
@click.option("--telemetry", type=click.Path(path_type=Path), default=None, help="Write one JSON line a frame.")
@click.option("--query-table", default="auto", show_default=True, metavar="FILE|none", help="A profile result.")
def run(
    source: str, pin: str | None, metrics: str | None, otlp: str | None, max_frames: int | None, **options: Any
) -> None:
    """Answer the frames of a source; one JSON line each on standard output."""
    from edge_runtime.sources import open_source
    from edge_runtime.telemetry import frame_record

    with _load(options) as runtime, open_source(source) as frames, contextlib.ExitStack() as stack:
        if pin is not None:
            runtime.pin(pin)
        if metrics is not None:
            from edge_runtime.metrics import serve_metrics

            runtime.on_result(stack.enter_context(serve_metrics(metrics)).take)
        if otlp is not None:
            from edge_runtime.otlp_metrics import send_metrics

            runtime.on_result(stack.enter_context(send_metrics(otlp)).take)
        for count, result in enumerate(runtime.stream(frames), start=1):
            click.echo(json.dumps(frame_record(result, runtime.readings)))
            if count == max_frames:
                break


def _load(options: dict[str, Any]) -> Runtime:
    """The runtime that the options ask for."""
    from edge_runtime.runtime import Runtime

    same = (
        "profile", "backend", "precision", "threads", "policy", "telemetry", "query_table", "look_where_found",
    )  # fmt: skip
    return Runtime.load(
        options["bundle"] or default_bundle_path(), budget=_budget(options), adapt=not options["no_adapt"],
        smooth_s=options["smooth"], global_thread_pool=True, tell=lambda sentence: click.echo(sentence, err=True),
        **{name: options[name] for name in same},
    )  # fmt: skip


def _budget(options: dict[str, Any]) -> Budget:
    """What the options ask for."""
    budget = Budget.from_fps(options["target_fps"], options["min_accuracy"])
    if options["max_latency_ms"] is not None:
        budget = Budget(options["max_latency_ms"], options["min_accuracy"])
    if options["max_memory_mb"] is None:
        return budget
    return replace(budget, max_memory_bytes=round(options["max_memory_mb"] * 1e6))
