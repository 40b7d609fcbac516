"""A result as a table for the terminal: ASCII, 100 columns, cheapest point first."""

from __future__ import annotations

from edge_runtime.profiling.result_records import PointProfile, ProfileResult

HEAD = ("point", "threads", "p50 ms", "95 % interval", "p99 ms", "load ms", "added MB", "mJ", "accuracy", "verdict")


def render_result(result: ProfileResult) -> str:
    """Several lines: what and where, the table, sustained curves, notes, the verdict."""
    environment, bundle = result.environment, result.bundle
    engines = ", ".join(
        f"{backend} {environment.versions.get(backend, '')}".strip()
        for backend in dict.fromkeys(point.backend for point in result.points)
    )
    lines = [
        f"{bundle.name} on {environment.cpu_model or environment.architecture}, {environment.cores} cores, "
        f"{environment.system}, {engines}, profile {environment.device_profile}",
        *aligned_rows([HEAD, *(_row(point) for point in result.points)]),
    ]
    for curve in result.sustained:
        first, last = curve.samples[0], curve.samples[-1]
        lines.append(
            f"sustained {curve.point}: p50 {first.p50_ms:.3f} ms at the beginning, {last.p50_ms:.3f} ms after "
            f"{last.at_s:.0f} s; {curve.verdict.reason}"
        )
    lines += result.notes
    lines.append(f"{result.mode}, {result.duration_s:.0f} s: {result.verdict.reason}")
    return "\n".join(lines)


def _row(point: PointProfile) -> tuple[str, ...]:
    latency, split = point.latency, "test" if "test" in point.accuracy else "select"
    load_ms = point.load.warm_ms if point.load.cold_ms is None else point.load.cold_ms
    return (
        point.name if point.backend != "executorch" or point.name.endswith("-et") else f"{point.name} (executorch)",
        str(point.threads),
        f"{latency.p50_ms.value:.3f}",
        f"{latency.p50_ms.low:.3f}-{latency.p50_ms.high:.3f}",
        f"{latency.p99_ms.value:.3f}",
        "-" if load_ms is None else f"{load_ms:.1f}",
        "-" if point.memory.added_bytes is None else f"{point.memory.added_bytes / 1e6:.1f}",
        "-" if point.energy.energy_mj is None else f"{point.energy.energy_mj:.2f}",
        f"{point.accuracy[split]:.3f}",
        point.verdict.reason,
    )


def aligned_rows(rows: list[tuple[str, ...]]) -> list[str]:
    """Columns as wide as their widest cell; the first and the last one to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column in (0, len(row) - 1) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
