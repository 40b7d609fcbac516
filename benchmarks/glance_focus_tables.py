"""Tables of docs/glance-and-focus.md, from what the benchmarks of Glance and Focus measured."""

from __future__ import annotations

from typing import Any

import click

from benchmarks.record import RESULTS

PAGE = RESULTS.parent.parent / "docs" / "glance-and-focus.md"
Row = dict[str, Any]


def render(values: dict[str, Any]) -> dict[str, str]:
    """Marker -> table, of benchmarks/results/glance_focus.json."""
    tables = {
        "plans": _plans(values["focus"]),
        "budgets": _budgets(values["budgets"]),
        "controls": _controls(values["controls"]),
        "static": _static(values["static"], values["speed_ups"]),
    }
    return {name: "\n".join(lines) for name, lines in tables.items()}


def video_table(values: dict[str, Any]) -> str:
    """Of benchmarks/results/focus_video.json."""
    lines = [
        "| point | looks | with the option | accuracy | with the option | mean ms | with the option | begun so |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in values["points"]:
        looks, right, run_ms = row["looks"], row["right"], row["run_ms"]
        lines.append(
            f"| {row['point']} | {looks['without']:.2f} | {looks['with']:.2f} ({_change(looks, 2)}) | "
            f"{right['without']:.3f} | {right['with']:.3f} ({_change(right, 3)}) | {run_ms['without']:.2f} | "
            f"{run_ms['with']:.2f} ({_change(run_ms, 2)}) | {row['hinted']:.0%}, after a cut "
            f"{row['hinted_across_cuts']:.0%} |"
        )
    source = f"{values['videos']} videos of {values['frames']} frames, {values['backend']}, one thread"
    return "\n".join([*lines, "", f"{source}; in brackets the change and one standard error over videos."])


def _change(row: Row, digits: int) -> str:
    return f"{row['difference']:+.{digits}f} ± {row['standard_error']:.{digits}f}"


def fill(page: str, tables: dict[str, str]) -> str:
    """The page with each table between its markers."""
    for name, table in tables.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        head, _, rest = page.partition(begin)
        _, found, tail = rest.partition(end)
        if not found:
            raise click.ClickException(f"{PAGE}: the markers {begin} and {end} are missing; restore them")
        page = f"{head}{begin}\n{table}\n{end}{tail}"
    return page


def _plans(rows: list[Row]) -> list[str]:
    lines = ["| point | planned | realised, MMAdds | looks | test accuracy | mean ms |", "|---|---|---|---|---|---|"]
    for row in rows:
        lines.append(
            f"| {row['point']} | {row['planned_madds'] / 1e6:.2f} | {row['realised_madds'] / 1e6:.2f} "
            f"({row['cost_error']:+.1%}) | {row['looks']:.2f} | {row['test_accuracy']:.3f} | {row['mean_ms']:.2f} |"
        )
    return lines


def _budgets(values: Row) -> list[str]:
    lines = ["| planned, MMAdds | realised | error | accuracy, planned | on test |", "|---|---|---|---|---|"]
    for row in values["plans"]:
        lines.append(
            f"| {row['planned_madds'] / 1e6:.2f} | {row['realised_madds'] / 1e6:.2f} ± "
            f"{row['standard_error_madds'] / 1e6:.2f} | {row['cost_error']:+.1%} | {row['planned_accuracy']:.3f} | "
            f"{row['test_accuracy']:.3f} |"
        )
    solved = f"{values['held_out_pictures']} pictures with {values['held_out_scenes']} scenes of each"
    played = f"{values['test_pictures']} with {values['test_scenes']}"
    return [*lines, "", f"Solved on {solved}, played on {played}; ± is one standard error over pictures."]


def _controls(rows: list[Row]) -> list[str]:
    lines = ["| look | patches | test accuracy | against the policy, p |", "|---|---|---|---|"]
    for row in rows:
        p_value = "" if row["p_value"] is None else f"{row['p_value']:.2g}"
        lines.append(f"| {row['look']} | {row['patches']} | {row['test_accuracy']:.3f} | {p_value} |")
    return lines


def _static(rows: list[Row], speed_ups: list[Row]) -> list[str]:
    if not rows:
        return ["Not measured yet: the baseline is not trained (`make train-focus` makes it; then give `--static`)."]
    lines = [
        "| static point | test accuracy | mean ms | equal or better focus point | times faster |",
        "|---|---|---|---|---|",
    ]
    for row, faster in zip(rows, speed_ups, strict=True):
        times = "none is as accurate" if faster["times_faster"] is None else f"{faster['times_faster']:.2f}"
        measured = f"{row['test_accuracy']:.3f} | {row['mean_ms']:.2f}"
        lines.append(f"| {row['point']} | {measured} | {faster['focus'] or ''} | {times} |")
    return lines


def deadline_line(late: Row) -> dict[str, str]:
    """Marker -> line, of benchmarks/results/glance_focus_deadline.json."""
    return {
        "deadline": f"Deadline {late['deadline_ms']:.2f} ms, {late['busy_processes']} busy processes: "
        f"{late['in_time']:.2%} of {late['frames']} frames in time, {late['looks']:.2f} looks, accuracy "
        f"{late['accuracy']:.3f}, p99 {late['latency_ms']['p99']:.2f} ms; always two looks, in turn with it: "
        f"{late['two_look_in_time']:.2%} in time, accuracy {late['two_look_accuracy']:.3f} with late ones, "
        f"p99 {late['two_look_latency_ms']['p99']:.2f} ms; {late['bundle']}."
    }
