"""Measure the points in blocks, in random order, each run as a frame would meet it.

A run that follows the one before at once finds its weights in the nearest cache and the core awake; a run 33 ms later
does not: benchmarks/frame_pause.py measures how much that is. So runs start one frame period apart, other data passes
through the caches in between, and a picture is prepared just before, as in the pipeline.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from edge_runtime.backends import Runner
from edge_runtime.early_exit import EarlyExitRunner
from edge_runtime.errors import ResultError
from edge_runtime.manifest import OperatingPoint
from edge_runtime.preprocess import TensorSpec, fitted, preprocess, write_normalised
from edge_runtime.profiling.result_records import Block, Load, Memory
from edge_runtime.readings import Readings
from edge_runtime.residency import OTHER_DATA_BYTES
from edge_runtime.sensor_loop import Sensors

PICTURE_HW = (480, 640)
BLOCK_WARM_RUNS = 2
WARM_WINDOW = 5
WARM_TOLERANCE = 0.05
MAX_WARM_RUNS = 60
MAX_WARM_S = 2.0
COOL_POLL_S = 0.5
YARDSTICK_SHAPE = (32, 64, 64)
"""Matrices of the arithmetic yardstick: 8.4 million multiply-adds, each too small to be divided among threads."""

Clock = Callable[[], float]
Sleep = Callable[[float], None]


@dataclass
class Entry:
    """A point at one number of threads, while it is measured."""

    point: OperatingPoint
    backend: str
    precision: str
    threads: int
    runner: Runner
    load: Load
    memory: Memory
    warm_ms: float = 0.0
    """One run, back to back, at the end of the warm-up."""
    blocks: list[Block] = field(default_factory=list)
    throttled: bool = False
    looks: tuple[float, tuple[float, ...]] | None = None
    """With early exits: the expected looks, and the share of pictures that stop after each."""

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells entries apart."""
        return self.point.name, self.backend, self.threads


class BlockMeter:
    """Runs blocks and reads the sensors around them.

    Args:
        spec: of the bundle, to prepare pictures.
        sensors: what this device can tell.
        period_ms: from the start of one run to the next; 0 is back to back.
        clock: seconds, monotonic, as fine as the system has.
        sleep: waits for so many seconds.
    """

    def __init__(self, spec: TensorSpec, sensors: Sensors, period_ms: float, clock: Clock, sleep: Sleep) -> None:
        self._spec, self._sensors, self._period_s = spec, sensors, period_ms / 1000.0
        self._clock, self._sleep = clock, sleep
        self._began_s = clock()
        self._picture = np.random.default_rng(0).integers(0, 256, (*PICTURE_HW, 3), np.uint8)
        self._elsewhere = np.zeros(OTHER_DATA_BYTES // 4, np.float32)
        self._matrices = np.random.default_rng(0).random(YARDSTICK_SHAPE, np.float32)
        self._products = np.empty_like(self._matrices)
        self.waited_to_cool_s = 0.0

    @property
    def elapsed_s(self) -> float:
        """Since the meter was made."""
        return self._clock() - self._began_s

    def timed_run_ms(self, entry: Entry) -> float:
        """One run, milliseconds; with early exits, as if it had taken the expected number of looks.

        Raises:
            ResultError: the clock went backwards.
        """
        started_s = self._clock()
        entry.runner.run()
        taken_ms = (self._clock() - started_s) * 1000.0
        if taken_ms < 0.0:
            raise ResultError(
                f"point {entry.point.name}: the clock went backwards by {-taken_ms:.3f} ms; "
                "let the system's clock settle and profile again"
            )
        if isinstance(entry.runner, EarlyExitRunner):  # the query table holds what the pipeline will compare with it
            taken_ms = entry.runner.comparable_ms(taken_ms)
        return max(taken_ms, 1e-6)

    def prepare(self, entry: Entry) -> None:
        """Write a picture where the point expects it, as the pipeline does before each run."""
        point, target = entry.point, entry.runner.input
        if point.frames is None:
            preprocess(self._picture, self._spec, point.size_hw, out=target)
            return
        newest = fitted(self._picture, self._spec, point.size_hw)  # the frames before it are kept at this size
        for slot in range(point.frames):
            write_normalised(newest, self._spec, target[0, :, slot])

    def warm_up(self, entry: Entry) -> None:
        """Run until the median of the last runs is that of the runs before; sets `entry.warm_ms`."""
        self.prepare(entry)
        samples: list[float] = []
        began_s = self._clock()
        while len(samples) < MAX_WARM_RUNS:
            samples.append(self.timed_run_ms(entry))
            entry.warm_ms = statistics.median(samples[-WARM_WINDOW:])
            enough = len(samples) >= 2 * WARM_WINDOW
            before = statistics.median(samples[-2 * WARM_WINDOW : -WARM_WINDOW]) if enough else 0.0
            settled = enough and abs(entry.warm_ms - before) <= WARM_TOLERANCE * before
            if settled or (len(samples) >= WARM_WINDOW and self._clock() - began_s > MAX_WARM_S):
                return

    def measure(self, entry: Entry, runs: int) -> None:
        """Append one block to the entry; nothing is appended when it is interrupted."""
        for _ in range(BLOCK_WARM_RUNS):
            self.prepare(entry)
            entry.runner.run()
        self._sensors.read(self._clock())  # loads are shares since the last reading
        started_s = self.elapsed_s
        samples, yardsticks, next_s = [], [], self._clock()
        for _ in range(runs):
            next_s += self._period_s
            memory_s = self._between_frames(next_s)
            next_s = max(next_s, self._clock())
            self.prepare(entry)
            samples.append(self.timed_run_ms(entry))
            yardsticks.append((self._arithmetic_s(), memory_s))
        readings = self._sensors.read(self._clock())
        entry.throttled = entry.throttled or readings.throttled is True
        entry.blocks.append(_block(started_s, samples, readings, yardsticks))

    def cool_down(self, below_c: float | None, longest_s: float) -> None:
        """Wait while the device throttles or is hotter than `below_c`, for `longest_s` in the whole profile."""
        while self.waited_to_cool_s < longest_s:
            readings = self._sensors.read(self._clock())
            hot = below_c is not None and readings.temperature_c is not None and readings.temperature_c > below_c
            if not hot and readings.throttled is not True:
                return
            self._sleep(COOL_POLL_S)
            self.waited_to_cool_s += COOL_POLL_S

    def _between_frames(self, next_s: float) -> float:
        """Pass other data through the caches and wait; seconds that the data took."""
        began_s = self._clock()
        self._elsewhere += 1.0
        ended_s = self._clock()
        if ended_s < next_s:
            self._sleep(next_s - ended_s)
        return ended_s - began_s

    def _arithmetic_s(self) -> float:
        """Seconds of the same arithmetic each time; after the run, so that the run meets the core as a frame does."""
        began_s = self._clock()
        np.matmul(self._matrices, self._matrices[0], out=self._products)
        return self._clock() - began_s


def random_order(entries: Sequence[Entry], rounds: int, seed: int) -> list[Entry]:
    """Every entry once in each round, each round in an order of its own."""
    generator = random.Random(seed)
    order: list[Entry] = []
    for _ in range(rounds):
        order += generator.sample(entries, len(entries))
    return order


def _block(started_s: float, samples: list[float], readings: Readings, yardsticks: list[tuple[float, float]]) -> Block:
    frequencies = readings.core_frequency_mhz
    arithmetic_ms, memory_ms = (1000.0 * statistics.median(column) for column in zip(*yardsticks, strict=True))
    return Block(
        round(started_s, 4),
        tuple(round(ms, 6) for ms in samples),
        None if readings.foreign_load is None else round(readings.foreign_load, 4),
        readings.temperature_c,
        round(statistics.fmean(frequencies), 1) if frequencies else None,
        round(arithmetic_ms, 6) or None,
        round(memory_ms, 6) or None,
    )
