"""The sections of a report that tell of profiles of one bundle, on one device or several."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from edge_runtime.reporting.distribution_chart import distributions
from edge_runtime.reporting.document import Figure, Section, percent, significant
from edge_runtime.reporting.ladder import Device, Entry
from edge_runtime.reporting.ladder_chart import ladder_chart, precision_chart, precision_pairs
from edge_runtime.reporting.profile_charts import (
    energy_bars,
    memory_bars,
    operator_bars,
    operator_kinds,
)
from edge_runtime.reporting.profile_story import (
    environment_table,
    ladder_tables,
    load_table,
    measured_alone,
    memory_together,
    unstable_table,
)
from edge_runtime.reporting.sustained_chart import sustained_chart
from edge_runtime.reporting.sweep_charts import device_lines, thread_lines

MOST_HILLS = 13
MEASURES = {"classification": "top-1", "detection": "average precision at IoU 0.5"}
"""Task of a bundle -> what its accuracies are."""


def profile_sections(devices: Sequence[Device], split: str) -> tuple[Section, ...]:
    """Everything about the profiles; a section without anything to show is left out."""
    made = [
        _ladder(devices, split), _side_by_side(devices), _latency(devices), _sustained(devices), _memory(devices),
        _energy(devices), _operators(devices), _precision(devices, split), _threads(devices), _trust(devices),
        _environment(devices),
    ]  # fmt: skip
    return tuple(section for section in made if section is not None)


def spread(entries: Sequence[Entry], most: int) -> tuple[Entry, ...]:
    """At most so many of them, both ends among them."""
    if len(entries) <= most:
        return tuple(entries)
    return tuple(entries[round(i * (len(entries) - 1) / (most - 1))] for i in range(most))


def count_of_threads(count: int) -> str:
    """The number with its noun."""
    return f"{count} thread{'' if count == 1 else 's'}"


def sentence_of(note: str) -> str:
    """A note as a sentence."""
    return f"{note[0].upper()}{note[1:].rstrip('.')}."


def _of(device: Device, devices: Sequence[Device]) -> str:
    """Ends the title of a figure when there are several devices."""
    return f", {device.label}" if len(devices) > 1 else ""


def _ladder(devices: Sequence[Device], split: str) -> Section:
    figure = Figure(
        "ladder", "Accuracy against latency",
        "Up and left is better. The line is the Pareto front: the points worth having. Pale points are beaten by "
        "another that is faster and at least as accurate. A whisker reaches from the median to the 99th percentile.",
        partial(ladder_chart, devices, split),
    )  # fmt: skip
    counts = list(dict.fromkeys(device.threads for device in devices))
    threads = count_of_threads(counts[0])
    if len(counts) > 1:
        threads = " and ".join(f"{count_of_threads(device.threads)} on {device.label}" for device in devices)
    dataset = devices[0].result.bundle.splits.get(split)
    measure = MEASURES.get(devices[0].result.bundle.task, "top-1")
    source = f"Accuracy is {measure} on {split}{f' ({dataset})' if dataset else ''}; latency is with {threads}."
    tables = [table for device in devices for table in ladder_tables(device, _of(device, devices))]
    return Section("ladder", "The ladder", (source,), (figure,), tuple(tables))


def _side_by_side(devices: Sequence[Device]) -> Section | None:
    if len(devices) < 2:
        return None
    figure = Figure(
        "devices", "Median latency by device",
        "Median latency of each point that is worth having on at least one device.",
        partial(device_lines, devices),
    )  # fmt: skip
    return Section("devices", "Devices side by side", figures=(figure,))


def _latency(devices: Sequence[Device]) -> Section:
    figures = []
    for number, device in enumerate(devices, start=1):
        shown = spread(device.ladder if len(device.ladder) <= MOST_HILLS else device.front, MOST_HILLS)
        samples = [(entry.label, entry.samples_ms) for entry in shown]
        figures.append(Figure(
            f"latency-{number}", f"Latency by operating point{_of(device, devices)}",
            "The higher the hill, the more runs took so long; marks at the median and the 99th percentile. "
            f"{'Points on the Pareto front.' if len(shown) < len(device.ladder) else 'Every point.'}",
            partial(distributions, samples, "milliseconds of one run (logarithmic)"),
        ))  # fmt: skip
    return Section("latency", "Latency by point", figures=tuple(figures))


def _sustained(devices: Sequence[Device]) -> Section | None:
    figures, sentences = [], []
    for number, device in enumerate(devices, start=1):
        for index, curve in enumerate(device.result.sustained, start=1):
            if not curve.samples:
                continue
            first, last = curve.samples[0].p50_ms, curve.samples[-1].p50_ms
            sentences.append(
                f"{device.label}, {curve.point}: {significant(first)} ms at the start, {significant(last)} ms after "
                f"{curve.samples[-1].at_s:,.0f} s ({curve.verdict.reason})."
            )
            figures.append(Figure(
                f"sustained-{number}-{index}", f"{curve.point} without pause{_of(device, devices)}",
                "Latency, and the sensors that were known, while the point ran without pause.",
                partial(sustained_chart, curve),
            ))  # fmt: skip
    return Section("sustained", "Sustained load", tuple(sentences), tuple(figures)) if figures else None


def _memory(devices: Sequence[Device]) -> Section | None:
    figures, sentences = [], []
    for number, device in enumerate(devices, start=1):
        if measured_alone(device):
            shown = device.ladder if len(device.ladder) <= MOST_HILLS else spread(device.front, MOST_HILLS)
            figures.append(Figure(
                f"memory-{number}", f"Memory added by each point{_of(device, devices)}",
                "Solid: what the point adds to a process of its own. Pale: the highest above the baseline while it "
                "loads and runs.",
                partial(memory_bars, shown),
            ))  # fmt: skip
        elif (together := memory_together(device)) is not None:
            sentences.append(
                f"{device.label}: all {len(device.ladder)} points together add {significant(together / 1e6)} MB to the "
                "process; each was loaded beside the ones before it."
            )
    points = [entry.point for device in devices for entry in device.ladder]
    notes = {point.load.note for point in points} | {point.memory.note for point in points}
    sentences += sorted(sentence_of(note) for note in notes if note)[:6]
    table = load_table(devices)
    has_more = any(column.key not in ("device", "point", "kind") for column in table.used_columns)
    if not (figures or has_more):
        return None
    return Section("memory", "Loading and memory", tuple(sentences), tuple(figures), (table,))


def _energy(devices: Sequence[Device]) -> Section:
    figures, sentences = [], []
    for number, device in enumerate(devices, start=1):
        energies = [entry.point.energy for entry in device.ladder]
        known = [energy for energy in energies if energy.energy_mj is not None]
        start = f"{device.label}: " if len(devices) > 1 else ""
        if not known:
            reason = energies[0].source.removeprefix("not measurable here: ") or "no sensor"
            sentences.append(f"{start}Energy is not measurable here: {reason}")
            continue
        shown = device.ladder if len(device.ladder) <= MOST_HILLS else spread(device.front, MOST_HILLS)
        sources = " and ".join(sorted({f"{energy.kind}, {energy.source}" for energy in known}))
        sentences.append(f"{start}{sources}")
        figures.append(Figure(
            f"energy-{number}", f"Energy of one run{_of(device, devices)}",
            f"Millijoules of one run ({' and '.join(sorted({energy.kind for energy in known}))}).",
            partial(energy_bars, shown),
        ))  # fmt: skip
    return Section("energy", "Energy", tuple(sentences), tuple(figures))


def _operators(devices: Sequence[Device]) -> Section | None:
    figures, sentences = [], []
    for number, device in enumerate(devices, start=1):
        known = [entry for entry in device.front if entry.point.operators.rows]
        start = f"{device.label}: " if len(devices) > 1 else ""
        delegation = device.front[-1].point.delegation
        if delegation.note:
            fallbacks = f" Fallbacks: {', '.join(delegation.fallbacks[:12])}." if delegation.fallbacks else ""
            sentences.append(f"{start}{sentence_of(delegation.note)}{fallbacks}")
        if not known:
            sentences.append(f"{start}No time per operator: {device.front[-1].point.operators.source}")
            continue
        best = known[-1]
        kinds = partial(operator_kinds, spread(known, MOST_HILLS))
        top = partial(operator_bars, best.point)
        figures += [
            Figure(f"operator-kinds-{number}", f"Where the time goes{_of(device, devices)}",
                   f"Time by kind of operator, for points on the Pareto front ({best.point.operators.source}).", kinds),
            Figure(f"operators-{number}", f"Slowest operators of {best.label}{_of(device, devices)}",
                   "The operators of the most accurate point that take longest, and their share of its time.", top),
        ]  # fmt: skip
    return Section("operators", "Operators", tuple(sentences), tuple(figures)) if figures or sentences else None


def _precision(devices: Sequence[Device], split: str) -> Section | None:
    with_pairs = [device for device in devices if precision_pairs(device)]
    if not with_pairs:
        return None
    sentences = []
    for device in with_pairs:
        pairs = precision_pairs(device)
        faster = sorted(fp32.p50_ms / int8.p50_ms for fp32, int8 in pairs)[len(pairs) // 2]
        worst = min(pairs, key=lambda pair: pair[1].accuracy - pair[0].accuracy)
        lost = worst[0].accuracy - worst[1].accuracy
        sentences.append(
            f"{device.label}: int8 takes {percent(1.0 / faster)} of the time of fp32 (the middle of {len(pairs)} "
            f"pairs) and costs at most {100.0 * max(lost, 0.0):.1f} points of accuracy."
        )
    figures = tuple(
        Figure(
            f"precision-{number}", f"int8 against fp32{_of(device, devices)}",
            "Each line joins the same width and input size in both precisions; up and left is better.",
            partial(precision_chart, [device], split),
        )
        for number, device in enumerate(with_pairs, start=1)
    )  # fmt: skip
    return Section("precision", "int8 against fp32", tuple(sentences), figures)


def _threads(devices: Sequence[Device]) -> Section | None:
    figures = tuple(
        Figure(
            f"threads-{number}", f"Thread sweep{_of(device, devices)}",
            "Median latency against the number of threads; a line that rises to the right says: fewer threads.",
            partial(thread_lines, device),
        )
        for number, device in enumerate(devices, start=1)
        if len({entry.point.threads for entry in device.entries}) > 1
    )  # fmt: skip
    return Section("threads", "Threads", figures=figures) if figures else None


def _trust(devices: Sequence[Device]) -> Section:
    sentences = []
    for device in devices:
        loads = [b.foreign_load for e in device.entries for b in e.point.latency.blocks if b.foreign_load is not None]
        load = f" Other programs took {percent(sum(loads) / len(loads))} of all cores meanwhile." if loads else ""
        runs = sum(entry.point.latency.count for entry in device.entries)
        reason = device.result.verdict.reason.rstrip(".")
        sentences.append(f"{device.label}: {reason}. {runs:,} runs in {device.result.method.rounds} rounds.{load}")
    return Section("trust", "How far to trust this", tuple(sentences), tables=(unstable_table(devices),))


def _environment(devices: Sequence[Device]) -> Section:
    commands = "\n".join(device.result.command for device in devices if device.result.command)
    return Section(
        "environment", "Environment and command", tables=(environment_table(devices),), preformatted=commands
    )
