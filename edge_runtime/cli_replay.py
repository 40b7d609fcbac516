"""The command `edge-runtime replay`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edge_runtime.recorded_trace import RecordedTrace
    from edge_runtime.replay import Replayed, ReplaySummary


@click.command()
@click.argument("trace", type=click.Path(path_type=Path))
@click.option("--policy", default=None, help="ours, static, best-static, threshold, ...; default: the recorded one.")
@click.option("--point", default=None, help="For --policy static: its operating point.")
@click.option("--what-if", "again", is_flag=True, help="Do not compare, also where the policy is the recorded one.")
@click.option("--expect", type=click.Path(path_type=Path), default=None, help="File of decisions to compare with.")
@click.option(
    "--write-decisions", type=click.Path(path_type=Path), default=None, help="Write the decisions, one a line."
)
@click.option("--format", "-f", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def replay(
    trace: Path, policy: str | None, point: str | None, again: bool, expect: Path | None, write_decisions: Path | None,
    form: str,
) -> None:  # fmt: skip
    """Decide again over a recorded run (--telemetry FILE): the same decisions, or those of another policy."""
    from edge_runtime.errors import ReplayError
    from edge_runtime.recorded_trace import read_trace
    from edge_runtime.replay import (
        changed_settings,
        first_difference,
        recorded_decisions,
        replay_same,
        same_policy,
        summarise,
        what_if,
    )

    recorded = read_trace(trace)
    compared = same_policy(recorded, policy) and not again and point is None
    name = policy or recorded.policy
    if compared or policy is None:
        frames = replay_same(recorded)
    else:
        options: dict[str, Any] = {} if point is None else {"point": point}
        frames = what_if(recorded, name, **options)
    expected = None
    if expect is not None:
        expected = _read_decisions(expect)
    elif compared:
        expected = recorded_decisions(recorded)
    difference = None if expected is None else first_difference(frames, expected)
    if write_decisions is not None:
        _write_decisions(write_decisions, frames)
    summary = summarise(name, frames)
    if form == "json":
        click.echo(json.dumps({**summary.to_dict(), "compared": expected is not None, "difference": difference}))
    else:
        _show(recorded, summary)
        if expected is not None and difference is None:
            click.echo(f"all {len(frames)} decisions are the expected ones")
    if difference is not None:
        changed = changed_settings(recorded)
        hint = f"; constants have changed: {'; '.join(changed)}" if changed else ""
        raise ReplayError(f"{trace}: replays to other decisions: {difference}{hint}")


def _show(recorded: RecordedTrace, summary: ReplaySummary) -> None:
    end = "" if recorded.complete else ", cut off"
    click.echo(f"{recorded.name}: {summary.frames} frames, recorded under {recorded.policy}{end}")
    share = "-" if summary.on_time_share is None else f"{summary.on_time_share:.2%}"
    accuracy = "-" if summary.in_time_accuracy is None else f"{summary.in_time_accuracy:.4f}"
    click.echo(f"{summary.policy}: on time {share}, in-time accuracy {accuracy}, {summary.switches} switches")
    for point, count in summary.points.items():
        click.echo(f"  {point:<20} {count:6d} frames  {count / summary.frames:6.1%}")


def _write_decisions(path: Path, frames: list[Replayed]) -> None:
    from edge_runtime.errors import SinkError
    from edge_runtime.replay import decision_record

    lines = [json.dumps(decision_record(frame.index, frame.decision)) for frame in frames]
    try:
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise SinkError(f"{path}: decisions cannot be written: {error.strerror}; choose another path") from error


def _read_decisions(path: Path) -> list[tuple[int, dict[str, Any]]]:
    from edge_runtime.errors import ReplayError

    try:
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [(record.pop("index"), record) for record in records]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a file of decisions"
        raise ReplayError(f"{path}: cannot be read: {reason}; --write-decisions makes one") from error
