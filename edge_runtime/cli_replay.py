"""The command `edge-runtime replay`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edge_runtime.recorded_trace import RecordedTrace
    from edge_runtime.replay import Replayed, ReplaySummary

Decisions = list[tuple[int, dict[str, Any]]]
"""Index of a frame, and what was decided."""


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
    from edge_runtime.recorded_trace import read_trace
    from edge_runtime.replay import first_difference, summarise

    recorded = read_trace(trace)
    frames, expected = _decide_again(recorded, policy, point, again)
    if expect is not None:
        expected = _read_decisions(expect)
    difference = None if expected is None else first_difference(frames, expected)
    if write_decisions is not None:
        _write_decisions(write_decisions, frames)
    summary = summarise(policy or recorded.policy, frames)
    if form == "json":
        click.echo(json.dumps({**summary.to_dict(), "compared": expected is not None, "difference": difference}))
    else:
        _show(recorded, summary)
        if expected is not None and difference is None:
            click.echo(f"all {len(frames)} decisions are the expected ones")
    if difference is not None:
        raise _unexpected(trace, recorded, difference)


def _decide_again(
    recorded: RecordedTrace, policy: str | None, point: str | None, again: bool
) -> tuple[list[Replayed], Decisions | None]:
    """The frames decided again, and the recorded decisions where they should be the same."""
    from edge_runtime.replay import recorded_decisions, replay_same, same_policy, what_if

    compared = same_policy(recorded, policy) and not again and point is None
    if compared or policy is None:
        return replay_same(recorded), recorded_decisions(recorded) if compared else None
    options: dict[str, Any] = {} if point is None else {"point": point}
    return what_if(recorded, policy, **options), None


def _unexpected(trace: Path, recorded: RecordedTrace, difference: str) -> Exception:
    """What is said of decisions that are not the expected ones; names the constants that have changed."""
    from edge_runtime.errors import ReplayError
    from edge_runtime.replay import changed_settings

    changed = changed_settings(recorded)
    hint = f"; constants have changed: {'; '.join(changed)}" if changed else ""
    return ReplayError(f"{trace}: replays to other decisions: {difference}{hint}")


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


def _read_decisions(path: Path) -> Decisions:
    from edge_runtime.errors import ReplayError

    try:
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [(record.pop("index"), record) for record in records]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a file of decisions"
        raise ReplayError(f"{path}: cannot be read: {reason}; --write-decisions makes one") from error
